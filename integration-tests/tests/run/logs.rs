//! The log: one file, or several.

use super::*;

#[test]
fn full_log_files_are_kept_and_read_as_one() {
    let scene = scene("log files");
    let flags = ["--name", "l", "--log-size", "20k", "--log-files", "100"];
    run(&scene, &flags, "seq 1 5000").succeeds();
    let expected: Vec<String> = (1..=5000).map(|number| number.to_string()).collect();
    assert_eq!(teu(&scene, &["logs", "l"]).succeeds(), expected.join("\n"));
    let tail = teu(&scene, &["logs", "--tail", "1000", "l"]).succeeds();
    assert_eq!(tail, expected[4000..].join("\n"));
    let log = inspect(&scene, "l")["log"].as_str().unwrap().to_owned();
    let sizes: Vec<u64> = (1..)
        .map_while(|number| std::fs::metadata(format!("{log}.{number}")).ok())
        .map(|file| file.len())
        .collect();
    assert!(sizes.len() > 5, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 20 << 10), "{sizes:?}");
    // Begun again, it goes on.
    teu(&scene, &["start", "-a", "l"]).succeeds();
    assert_eq!(teu(&scene, &["logs", "l"]).stdout.lines().count(), 10_000);
    teu(&scene, &["rm", "l"]).succeeds();
}

#[test]
fn no_more_is_kept_than_was_asked_for() {
    let scene = scene("few log files");
    run(&scene, &["--name", "l", "--log-size", "20k"], "seq 1 5000").succeeds();
    let shown = teu(&scene, &["logs", "l"]).succeeds();
    let lines: Vec<u32> = shown.lines().map(|line| line.parse().unwrap()).collect();
    let (first, count) = (lines[0], u32::try_from(lines.len()).unwrap());
    assert!(first > 1 && first + count == 5001, "{first}, {count} lines");
    let log = inspect(&scene, "l")["log"].as_str().unwrap().to_owned();
    let exists = |end: &str| Path::new(&format!("{log}{end}")).exists();
    assert!(exists("") && exists(".1") && !exists(".2"));
    teu(&scene, &["rm", "l"]).succeeds();
    for wrong in [
        ["--log-size", "0"],
        ["--log-size", "x"],
        ["--log-files", "2"],
    ] {
        let _ = run(&scene, &wrong, "true").fails(125, &[wrong[0].trim_start_matches("--log-")]);
    }
}

#[test]
fn who_follows_misses_nothing_while_files_are_renamed() {
    let scene = scene("follow log files");
    let flags = ["-d", "--name", "f", "--log-size", "8k", "--log-files", "50"];
    let script =
        "i=0; while [ $i -lt 2000 ]; do seq $i $((i + 99)); i=$((i + 100)); sleep 0.03; done";
    run(&scene, &flags, script).succeeds();
    let shown = teu(&scene, &["logs", "-f", "f"]).succeeds();
    let expected: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
    assert_eq!(shown, expected.join("\n"));
    teu(&scene, &["rm", "f"]).succeeds();
}
