//! Templates on a real file system.

use super::*;

struct Place {
    root: tempfile::TempDir,
    templates: Templates,
}

fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    let data = Arc::new(DataDir::open(root.path()).unwrap());
    Place { root, templates: Templates::new(data) }
}

fn name(text: &str) -> TemplateName {
    TemplateName::new(text).unwrap()
}

impl Place {
    fn draft(&self, text: &str) -> Draft {
        let draft = self.templates.reserve(Kind::Image, &name(text)).unwrap().draft().unwrap();
        fs::write(draft.rootfs(), vec![1; 10_000]).unwrap();
        draft
    }

    fn names(&self) -> Vec<String> {
        self.templates.list().unwrap().into_iter().map(|listed| listed.name).collect()
    }
}

#[test]
fn published_template_is_found_listed_and_deleted() {
    let place = place();
    assert!(place.draft("a").publish().unwrap() >= 10_000);
    assert!(matches!(place.templates.find(&name("a")), Ok(Template::Image { .. })));
    assert_eq!(place.names(), ["a"]);
    place.templates.delete(&name("a")).unwrap();
    assert!(matches!(place.templates.find(&name("a")), Err(Error::Unknown(_))));
    assert!(matches!(place.templates.delete(&name("a")), Err(Error::Unknown(_))));
    assert_eq!(fs::read_dir(place.root.path().join("images")).unwrap().count(), 0);
}

#[test]
fn draft_is_not_visible_and_goes_when_it_is_dropped() {
    let place = place();
    let draft = place.draft("a");
    assert!(matches!(place.templates.find(&name("a")), Err(Error::Unknown(_))));
    assert!(place.names().is_empty());
    drop(draft);
    assert_eq!(fs::read_dir(place.root.path().join("images")).unwrap().count(), 0);
}

#[test]
fn name_is_taken_by_a_draft_and_by_a_template_of_either_kind() {
    let place = place();
    let taken = |kind| matches!(place.templates.reserve(kind, &name("a")), Err(Error::Taken(_)));
    let draft = place.draft("a");
    assert!(taken(Kind::Image) && taken(Kind::Snapshot));
    drop(draft);
    assert!(!taken(Kind::Image) && !taken(Kind::Snapshot));
    place.draft("a").publish().unwrap();
    assert!(taken(Kind::Image) && taken(Kind::Snapshot));
}

#[test]
fn half_written_and_half_deleted_templates_are_swept_at_start() {
    let place = place();
    place.draft("kept").publish().unwrap();
    std::mem::forget(place.draft("half"));
    fs::create_dir(place.root.path().join("snapshots/.deleted-1")).unwrap();
    drop(place.templates);
    let data = Arc::new(DataDir::open(place.root.path()).unwrap());
    let templates = Templates::new(data);
    templates.sweep().unwrap();
    assert_eq!(templates.list().unwrap().len(), 1);
    assert_eq!(fs::read_dir(place.root.path().join("images")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(place.root.path().join("snapshots")).unwrap().count(), 0);
}

#[test]
fn draft_with_its_whole_disk_is_finished_wherever_the_rest_is() {
    for moved in 0..3 {
        let place = place();
        let sandbox = tempfile::tempdir().unwrap();
        let draft = place.templates.reserve(Kind::Snapshot, &name("a")).unwrap().draft().unwrap();
        let files = ["memory", "state"];
        files.iter().for_each(|file| fs::write(sandbox.path().join(file), file).unwrap());
        fs::write(draft.rootfs(), [1; 512]).unwrap();
        let given = || place.templates.given(Kind::Snapshot, &name("a"));
        assert_eq!(given(), Given::Nothing, "a driver still writes it");
        fs::set_permissions(draft.rootfs(), Permissions::from_mode(0o444)).unwrap();
        assert_eq!(given(), Given::Draft);
        for file in &files[..moved] {
            fs::rename(sandbox.path().join(file), draft.dir.join(file)).unwrap();
        }
        fs::write(draft.dir.join(MANIFEST), "{").unwrap();
        // As if its agent were killed.
        place.templates.reserved.lock().unwrap().clear();
        std::mem::forget(draft);
        let manifest = manifest::tests::manifest();
        let rest = Rest { dir: sandbox.path(), files, manifest };
        place.templates.finish(Kind::Snapshot, &name("a"), Some(rest)).unwrap();
        assert_eq!(given(), Given::Published);
        let Template::Snapshot { dir, manifest } = place.templates.find(&name("a")).unwrap() else {
            panic!("it is a snapshot");
        };
        assert_eq!((manifest.disk_bytes, manifest.files.len()), (512, 3));
        assert_eq!(manifest.damage(&dir), None);
    }
}

#[test]
fn broken_manifest_is_an_error_that_says_what_to_do() {
    let place = place();
    let dir = place.root.path().join("snapshots/a");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("manifest.json"), "{").unwrap();
    let error = place.templates.find(&name("a")).unwrap_err();
    assert!(error.to_string().contains("build it again"), "{error}");
}
