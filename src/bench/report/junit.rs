//! JUnit XML, for continuous integration: a case a row. Wrong answers are failures, what failed is an error, what the device
//! cannot do or was not tried is skipped; how fast a row is makes no failure, a comparison does that.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::cells;
use crate::bench::record::{Group, Results, Row, Status};

pub fn render(results: &Results) -> String {
    let mut report = Report::new("aquatint bench");
    report.timestamp = results.started.parse().ok();
    report.set_time(duration(results.seconds));
    for group in Group::ALL {
        let rows: Vec<&Row> = results.rows.iter().filter(|row| row.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        let mut suite = TestSuite::new(group.name());
        for (name, value) in cells::facts(results) {
            suite.add_property((name, value.as_str()));
        }
        suite.add_test_cases(rows.into_iter().map(case));
        report.add_test_suite(suite);
    }
    report.to_string().expect("memory takes every line")
}

fn case(row: &Row) -> TestCase {
    let mut status = match row.status {
        Status::Ok | Status::Unstable => TestCaseStatus::success(),
        Status::Wrong => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Status::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        Status::Unsupported | Status::Skipped => TestCaseStatus::skipped(),
    };
    if let Some(reason) = &row.reason
        && !matches!(status, TestCaseStatus::Success { .. })
    {
        status.set_message(reason.as_str()).set_type(row.status.name());
    }
    let mut case = TestCase::new(row.id.as_str(), status);
    case.set_classname(format!("aquatint.{}", row.group.name()));
    case.add_property(("status", row.status.name()));
    if let Some(times) = &row.times {
        case.set_time(duration(times.main.median));
        case.add_property(("median", times.main.median.to_string().as_str()));
        let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(", {reason}"));
        case.set_system_out(format!(
            "{} {}, {}{reason}",
            cells::time(row),
            cells::precision(row),
            cells::share(row)
        ));
    }
    case
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
