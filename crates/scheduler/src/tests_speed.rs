#[test]
fn speed() {
    use std::sync::Arc;
    use skep_model::*;
    let now = Timestamp::from_secs(1);
    for (n, t, one_off) in [(1000usize, 1000usize, true), (1000, 10_000, true), (1000, 100_000, true), (100_000, 1000, true), (1000, 100_000, false)] {
        let mut set = crate::NodeSet::new();
        for i in 0..n {
            set.upsert_node(Arc::new(skep_proto::Node { id: format!("n{i}"), status: Some(skep_proto::NodeStatus { state: 2, ..Default::default() }), ..Default::default() }));
        }
        let tasks: Vec<Task> = (0..t).map(|i| Task { id: format!("t{i}").into(), service_id: if one_off { None } else { Some(format!("s{}", i / 100).into()) }, ..Default::default() }).collect();
        let refs: Vec<&Task> = tasks.iter().collect();
        let size = if one_off { 1 } else { 100 };
        let start = std::time::Instant::now();
        let d = set.schedule(refs.chunks(size), now);
        eprintln!("{n} nodes {t} tasks one_off={one_off}: {:?} {}", start.elapsed(), d.len());
    }
}
