//! The caps of a log: what passes, what is cut, and that the counts are exact.

use proptest::prelude::*;

use super::*;

const STEP: u32 = 3;

fn caps(step_bytes: u64, build_bytes: u64) -> LogCaps {
    LogCaps { step_bytes, build_bytes }
}

fn cap_of(caps: LogCaps) -> Cap {
    Cap::resume(Budget::new(caps, 0), STEP, Marks::default())
}

/// Lines of one command, with the marks that [`Output`](super::super::Output) gives to whole lines.
#[derive(Default)]
struct Source {
    at: u64,
    open: [bool; 2],
}

impl Source {
    fn line(&mut self, stream: OutputStream, bytes: Vec<u8>, cont: bool) -> OutputLine {
        self.at += bytes.len() as u64 + u64::from(!cont);
        self.open[usize::from(stream == OutputStream::Stderr)] = cont;
        let marks = Marks {
            stdout: self.at,
            stderr: self.at,
            stdout_open: self.open[0],
            stderr_open: self.open[1],
            ..Marks::default()
        };
        OutputLine { stream, bytes, cont, marks }
    }

    fn text(&mut self, text: &str) -> OutputLine {
        self.line(OutputStream::Stdout, text.into(), false)
    }
}

fn texts(logged: &[Capped]) -> Vec<String> {
    let text = |capped: &Capped| match capped {
        Capped::Line(line) => String::from_utf8_lossy(&line.bytes).into_owned(),
        Capped::Cut { text, .. } => text.clone(),
    };
    logged.iter().map(text).collect()
}

fn marks(logged: &[Capped]) -> Marks {
    match logged.last() {
        Some(Capped::Line(line)) => line.marks,
        Some(Capped::Cut { marks, .. }) => *marks,
        None => Marks::default(),
    }
}

/// What is in the log of each stream, newlines included.
fn logged_bytes(logged: &[Capped]) -> u64 {
    let bytes = |capped: &Capped| match capped {
        Capped::Line(line) => line.bytes.len() as u64 + u64::from(!line.cont),
        Capped::Cut { .. } => 0,
    };
    logged.iter().map(bytes).sum()
}

#[test]
fn output_within_the_caps_passes_as_it_is() {
    let (mut cap, mut source, mut out) = (cap_of(LogCaps::default()), Source::default(), vec![]);
    let now = Instant::now();
    for n in 0..1_000 {
        cap.push(source.text(&format!("line {n}")), now, &mut out);
    }
    cap.finish(vec![], Some(source.at), now, &mut out);
    assert_eq!(texts(&out), (0..1_000).map(|n| format!("line {n}")).collect::<Vec<_>>());
    assert_eq!(marks(&out).logged, Amount { bytes: source.at, lines: 1_000 });
    assert!(cap.cut().is_none());
}

#[test]
fn loud_step_keeps_its_head_and_its_tail_and_the_log_says_what_is_between() {
    let (mut cap, mut source, mut out) = (cap_of(caps(20_000, 1 << 30)), Source::default(), vec![]);
    let now = Instant::now();
    for n in 0..100_000 {
        cap.push(source.text(&format!("line {n}")), now, &mut out);
    }
    let before_the_end = out.len();
    cap.finish(vec![], Some(source.at), now, &mut out);
    let texts = texts(&out);
    assert_eq!(texts[..3], ["line 0", "line 1", "line 2"]);
    let tail = &texts[before_the_end + 1..];
    assert_eq!(tail.last().map(String::as_str), Some("line 99999"));
    let first: usize = tail[0].strip_prefix("line ").unwrap().parse().unwrap();
    assert_eq!(tail.len(), 100_000 - first, "the tail has no hole");
    let cut = cap.cut();
    assert_eq!(logged_bytes(&out) + cut.bytes, source.at);
    let said = format!("{} bytes, {} lines are left out so far", cut.bytes, cut.lines);
    assert!(texts[before_the_end].contains(&said), "{} in {}", said, texts[before_the_end]);
    assert_eq!(
        texts.iter().filter(|text| text.contains("left out")).count(),
        2,
        "at first, and at the end"
    );
}

#[test]
fn cut_output_is_spoken_of_now_and_then_and_its_marks_move() {
    let (mut cap, mut source, mut out) = (cap_of(caps(0, 0)), Source::default(), vec![]);
    let begun = Instant::now();
    for n in 0..10_000 {
        cap.push(source.text(&format!("line {n}")), begun, &mut out);
    }
    out.clear();
    assert_eq!(cap.due(), Some(begun + SAY_EVERY));
    cap.flush(begun + SAY_EVERY / 2, &mut out);
    assert!(out.is_empty());
    cap.flush(begun + SAY_EVERY, &mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(marks(&out), cap.marks());
    let waiting = source.at - cap.marks().low();
    assert!(waiting <= LOG_TAIL_BYTES as u64 && waiting > 0, "{waiting}");
    assert_eq!(cap.due(), None, "all is said");
}

#[test]
fn endless_line_keeps_its_head_and_the_lines_after_it() {
    let (mut cap, mut source, mut out) = (cap_of(LogCaps::default()), Source::default(), vec![]);
    let now = Instant::now();
    let part = |source: &mut Source, byte: u8, cont| {
        source.line(OutputStream::Stdout, vec![byte; 16 * 1024], cont)
    };
    for n in 0..100 {
        cap.push(part(&mut source, b'x', true), now, &mut out);
        if n == 50 {
            cap.push(source.line(OutputStream::Stderr, b"beside".to_vec(), false), now, &mut out);
        }
    }
    cap.push(part(&mut source, b'y', true), now, &mut out);
    cap.push(source.line(OutputStream::Stdout, b"its end".to_vec(), false), now, &mut out);
    cap.push(source.text("the next"), now, &mut out);
    let texts = texts(&out);
    assert!(texts.contains(&"beside".to_owned()), "the other stream goes on");
    let parts = texts.iter().filter(|text| text.starts_with('x')).count() as u64;
    assert_eq!(parts * 16 * 1024, LOG_LINE_BYTES);
    let end: Vec<&str> = texts.iter().rev().take(3).map(|text| &text[..4]).collect();
    assert_eq!(end, ["the ", "its ", "yyyy"], "its last part and its end are kept");
    assert_eq!(cap.cut(), Amount { bytes: 84 * 16 * 1024, lines: 0 });
    assert_eq!(logged_bytes(&out) + cap.cut().bytes, source.at);
}

#[test]
fn endless_line_does_not_hold_the_buffer_of_a_loud_other_stream() {
    let (mut cap, mut source, mut out) = (cap_of(LogCaps::default()), Source::default(), vec![]);
    let now = Instant::now();
    for _ in 0..20 {
        cap.push(source.line(OutputStream::Stderr, vec![b'x'; 16 * 1024], true), now, &mut out);
    }
    let held = source.at - cap.marks().low();
    assert_eq!(held, 16 * 1024);
    for _ in 0..5 {
        cap.push(source.line(OutputStream::Stdout, vec![b'a'; 16 * 1024], false), now, &mut out);
    }
    assert_eq!(cap.marks().low(), source.at);
}

#[test]
fn step_after_one_that_used_the_builds_cap_has_a_head_and_a_tail_of_its_own() {
    let budget = Budget::new(caps(1 << 20, 100_000), 0);
    let now = Instant::now();
    for step in 1..=3 {
        let (mut cap, mut source, mut out) =
            (Cap::resume(budget.clone(), step, Marks::default()), Source::default(), vec![]);
        for n in 0..50_000 {
            cap.push(source.text(&format!("line {n}")), now, &mut out);
        }
        cap.finish(vec![], Some(source.at), now, &mut out);
        let texts = texts(&out);
        assert_eq!((texts[0].as_str(), texts[1_000].as_str()), ("line 0", "line 1000"));
        assert_eq!(texts.last().map(String::as_str), Some("line 49999"));
        let most = if step == 1 { 100_000 } else { LOG_HEAD_BYTES_MIN };
        let logged = logged_bytes(&out);
        assert!(logged < most + LOG_TAIL_BYTES as u64, "step {step}: {logged}");
        assert_eq!(logged_bytes(&out) + cap.cut().bytes, source.at);
    }
}

#[test]
fn unfinished_last_line_is_kept_and_counted_without_a_newline() {
    let (mut cap, mut source, mut out) = (cap_of(caps(0, 0)), Source::default(), vec![]);
    let now = Instant::now();
    for _ in 0..20_000 {
        cap.push(source.text("some line"), now, &mut out);
    }
    let rest = source.line(OutputStream::Stdout, b"no newline".to_vec(), false);
    let end = source.at - 1;
    cap.finish(vec![rest], Some(end), now, &mut out);
    assert_eq!(texts(&out).last().map(String::as_str), Some("no newline"));
    let Marks { logged, cut, .. } = marks(&out);
    assert_eq!(logged.bytes + cut.bytes, end);
    assert_eq!(logged.lines + cut.lines, 20_000);
}

#[test]
fn what_the_guest_forgot_before_a_hand_over_counts_as_cut() {
    let (mut cap, mut source, mut out) = (cap_of(caps(0, 0)), Source::default(), vec![]);
    let now = Instant::now();
    let lines: Vec<_> = (0..40_000).map(|n| source.text(&format!("line {n}"))).collect();
    for line in &lines[..20_000] {
        cap.push(line.clone(), now, &mut out);
    }
    // All that was said is of the first cut; the guest was told to forget much more.
    let (told, forgotten) = (marks(&out), cap.marks().low());
    assert!(told.low() < forgotten);
    let logged = logged_bytes(&out);
    let mut next = Cap::resume(Budget::new(caps(0, 0), logged), STEP, told);
    next.forgotten(forgotten - told.low());
    let mut more = vec![];
    for line in lines.iter().filter(|line| line.marks.stdout > forgotten) {
        next.push(line.clone(), now, &mut more);
    }
    next.finish(vec![], Some(source.at), now, &mut more);
    assert_eq!(texts(&more).last().map(String::as_str), Some("line 39999"));
    assert_eq!(logged + logged_bytes(&more) + next.cut().bytes, source.at);
    assert!(!texts(&more).contains(&"line 0".to_owned()), "the head is over");
}

#[derive(Debug, Clone)]
struct Piece {
    stream: OutputStream,
    length: usize,
    cont: bool,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let stream = prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)];
    let length = prop_oneof![6 => 0usize..200, 3 => 1_000usize..16_384, 1 => Just(16_384)];
    let piece = (stream, length, prop::bool::weighted(0.3))
        .prop_map(|(stream, length, cont)| Piece { stream, length, cont });
    proptest::collection::vec(piece, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn kept_and_cut_are_all_and_the_end_is_kept_whoever_goes_on(
        pieces in pieces(),
        step_bytes in 0u64..200_000,
        build_bytes in 0u64..200_000,
        hand_over in any::<prop::sample::Index>(),
    ) {
        let now = Instant::now();
        let mut source = Source::default();
        let lines: Vec<OutputLine> = pieces
            .into_iter()
            .map(|piece| {
                let length = piece.length.max(usize::from(piece.cont));
                source.line(piece.stream, vec![b'x'; length], piece.cont)
            })
            .collect();
        let all = Amount {
            bytes: source.at,
            lines: lines.iter().filter(|line| !line.cont).count() as u64,
        };
        let caps = caps(step_bytes, build_bytes);
        let (mut cap, mut out) = (cap_of(caps), vec![]);
        let upto = if lines.is_empty() { 0 } else { hand_over.index(lines.len()) };
        for line in &lines[..upto] {
            cap.push(line.clone(), now, &mut out);
        }
        // Another runner reads again what is in no message of the log.
        let told = marks(&out);
        let mut next = Cap::resume(Budget::new(caps, told.logged.bytes), STEP, told);
        let above = |line: &&OutputLine| own(&line.marks, line.stream) > own(&told, line.stream);
        for line in lines.iter().filter(above) {
            next.push(line.clone(), now, &mut out);
        }
        next.finish(vec![], Some(source.at), now, &mut out);
        let end = next.marks();
        prop_assert_eq!(end.logged + end.cut, all);
        prop_assert_eq!(logged_bytes(&out), end.logged.bytes);
        prop_assert!(next.tail.is_empty() && next.tail_cost == 0);
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let of = |capped: &&Capped| matches!(capped, Capped::Line(line) if line.stream == stream);
            let last = lines.iter().rfind(|line| line.stream == stream).map(|line| own(&line.marks, stream));
            let kept = out.iter().rfind(of).map(|capped| match capped {
                Capped::Line(line) => own(&line.marks, stream),
                Capped::Cut { .. } => 0,
            });
            // A stream that was silent for long before the end may have no part in it.
            if last.is_some_and(|last| source.at - last < 1_000) {
                prop_assert_eq!(kept, last);
            }
        }
    }
}
