//! A bounded run of `cargo dev faults`: that nothing is lost, doubled or left behind.

use ovenbird_dev::{
    cache::{Artifacts, Cache},
    faults,
    progress::Ui,
};
use tokio_util::sync::CancellationToken;

/// Enough to hit most parts once; `cargo dev faults` does sixty for each of five seeds.
const FAULTS: usize = 10;

#[tokio::test]
async fn builds_under_ten_faults_end_once_with_whole_logs_and_leave_nothing() {
    let artifacts = Artifacts::locate(&Cache::open().unwrap()).unwrap();
    let outcome =
        Box::pin(faults::one(&Ui::new(), &artifacts, 1, FAULTS, &CancellationToken::new()))
            .await
            .unwrap();
    assert_eq!(outcome.broken, Vec::<String>::new(), "{outcome:?}");
    assert_eq!(outcome.faults.values().sum::<usize>(), FAULTS);
    assert!(outcome.builds.values().sum::<usize>() > 0, "no build met a fault");
}
