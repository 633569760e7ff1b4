//! Output without end, through the monitor that podman starts, into rotated logs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{GROWTH_MAX_KIB, Verdict};
use teu_integration_tests::Scene;
use teu_integration_tests::shim::Cost;

/// Lines of the container's output in a second: 10 MB/s, of 100 bytes each.
const LINES: u64 = 100_000;
/// Bytes of a log file before the next is begun.
const FILE_BYTES: u64 = 64 << 20;
/// A runtime whose container is a plain process: lines that are numbered, at a pace.
const RUNTIME: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --pid-file) pid=$2 ;; esac; shift; done
home=${0%/*}
setsid sh -c 'i=0; while [ ! -e '"$home"'/enough ]; do
	awk -v a=$i "BEGIN { for (i = a; i < a + LINES / 4; i++) printf \"%010.0f TEXT\n\", i }"
	i=$((i + LINES / 4)); sleep 0.2
done' </dev/null &
echo $! >"$pid"
"#;

pub(super) fn run(verdict: &mut Verdict, time: Duration, quick: bool) {
    let scene = Scene::new("soak: the monitor's flood");
    let home = scene.path("");
    scene.write(
        "runtime",
        RUNTIME
            .replace("LINES", &LINES.to_string())
            .replace("TEXT", &"x".repeat(88)),
    );
    scene.shell("chmod +x runtime; mkdir bundle");
    let at = |name: &str| home.join(name).display().to_string();
    let words = format!(
        "-c soak -u soak -r {} -b {} -p {} -P {} --full-attach -l k8s-file:{} --no-sync-log \
         --log-rotate --log-max-files 3 --log-size-max {FILE_BYTES}",
        at("runtime"),
        at("bundle"),
        at("pid"),
        at("monitor"),
        at("log")
    );
    scene.run("teu-shim", words.split_whitespace()).succeeds();
    let pid = std::fs::read_to_string(home.join("monitor")).expect("the monitor's pid");
    let pid: u32 = pid.trim().parse().expect("a pid");
    std::thread::sleep(Duration::from_secs(2));
    let before = Cost::of(pid);
    let (mut worst, mut checked) = (before.private, 0);
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::thread::sleep(Duration::from_millis(500));
        worst = worst.max(Cost::of(pid).private);
        // A file that was begun anew is read before it is gone.
        checked += follow(&home, verdict);
    }
    scene.write("enough", "");
    scene.wait_until("the monitor has left", || Cost::of(pid).rss == 0);
    let growth = worst.saturating_sub(before.private);
    println!("  {checked} full files in order; {before} at first, {growth} KiB more at most");
    verdict.check(
        growth <= GROWTH_MAX_KIB,
        format!("the monitor grows by less than {GROWTH_MAX_KIB} KiB"),
    );
    verdict.check(quick || checked > 10, "logs were rotated");
}

/// Checks the newest full file, once: its lines are numbered without a gap.
fn follow(home: &Path, verdict: &mut Verdict) -> usize {
    let path: PathBuf = home.join("log.1");
    let seen = home.join("seen");
    if !path.exists() || std::fs::hard_link(&path, &seen).is_err() {
        return 0;
    }
    let text = std::fs::read(&seen).unwrap_or_default();
    let _ = std::fs::remove_file(&seen);
    let _ = std::fs::remove_file(&path);
    // A line may have begun in the file before.
    let mut line: Option<Vec<u8>> = None;
    let mut last: Option<u64> = None;
    for entry in text
        .split(|byte| *byte == b'\n')
        .filter(|entry| !entry.is_empty())
    {
        let mut parts = entry.splitn(4, |byte| *byte == b' ').skip(2);
        let (tag, piece) = (parts.next(), parts.next().unwrap_or_default());
        if let Some(line) = &mut line {
            line.extend_from_slice(piece);
        }
        if tag != Some(b"F") {
            continue;
        }
        let whole = line.replace(Vec::new());
        let Some(whole) = whole else { continue };
        let number = std::str::from_utf8(&whole).ok();
        let number = number.and_then(|text| text.split(' ').next()?.parse().ok());
        if last.is_some_and(|last| Some(last + 1) != number) || number.is_none() {
            verdict.check(false, format!("line {number:?} follows {last:?}"));
            return 1;
        }
        last = number;
    }
    1
}
