//! What a monitor costs while its container does nothing.

use super::post::{Post, ours, same};
use teu_integration_tests::Scene;
use teu_integration_tests::shim::Cost;

/// Runs five; what one of them costs on average.
fn five(post: &Post) -> Cost {
    post.program("exec sleep 1000");
    let mut pids = Vec::new();
    for number in 0..5 {
        let bundle = format!("bundle{number}");
        std::fs::create_dir_all(post.path(&bundle)).unwrap();
        std::fs::copy(
            post.path("bundle/program"),
            post.path(&bundle).join("program"),
        )
        .unwrap();
        post.start(&format!(
            "-b @/{bundle} -l k8s-file:@/log{number} -p @/pid{number} -P @/monitor{number}"
        ))
        .succeeds();
        post.wait_for(&format!("pid{number}"), "\n");
        pids.push(
            post.read(&format!("monitor{number}"))
                .parse::<u32>()
                .unwrap(),
        );
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let costs: Vec<Cost> = pids.iter().map(|pid| Cost::of(*pid)).collect();
    for number in 0..5 {
        post.scene
            .shell(&format!("kill -9 {}", post.read(&format!("pid{number}"))));
    }
    post.scene.wait_until("all have left", || {
        pids.iter().all(|pid| Cost::of(*pid).rss == 0)
    });
    let average = |of: fn(&Cost) -> u64| costs.iter().map(of).sum::<u64>() / 5;
    Cost {
        rss: average(|cost| cost.rss),
        pss: average(|cost| cost.pss),
        private: average(|cost| cost.private),
        descriptors: costs[0].descriptors,
    }
}

#[test]
fn an_idle_monitor_is_small() {
    let scene = Scene::new("the memory of an idle monitor");
    same(&scene, |post| {
        let cost = five(post);
        eprintln!("{}: {cost}", post.monitor.display());
        if post.monitor == ours(&scene).monitor && std::env::var_os("TEU_BINARIES").is_some() {
            assert!(
                cost.rss <= 1600 && cost.pss <= 500 && cost.private <= 300,
                "{cost}"
            );
        }
    });
}
