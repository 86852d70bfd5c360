//! The house rules that a compiler does not check: which file may import which.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Words shared by all.
const CORE: [&str; 15] = [
    "address",
    "budget",
    "deadline",
    "error",
    "event",
    "hex",
    "keyed",
    "late",
    "macros",
    "outcome",
    "random",
    "shared",
    "sync",
    "thread_slot",
    "time",
];
const PATTERNS: [&str; 9] =
    ["bulkhead", "cache", "circuit_breaker", "fallback", "hedge", "rate_limit", "red", "retry", "timeout"];
/// Leaves: they import everything, and nothing imports them.
const LEAVES: [&str; 2] = ["health", "stack"];

/// The files of a pattern folder, in the order in which they may import one another.
const CIRCUIT_BREAKER: [&str; 24] = [
    "tally",
    "consecutive",
    "ring",
    "time_window",
    "in_flight",
    "open_time",
    "policy",
    "window",
    "probes",
    "snapshot",
    "step",
    "machine",
    "word",
    "parked",
    "place",
    "state",
    "wait",
    "permit",
    "handle",
    "future",
    "keyed_future",
    "service",
    "layer",
    "keyed",
];

const RETRY: [&str; 14] = [
    "backoff", "delays", "cost", "decision", "recipe", "policy", "resend", "spare", "state", "course", "handle",
    "future", "service", "layer",
];
const RATE_LIMIT: [&str; 27] = [
    "quota",
    "token_bucket",
    "sliding_log",
    "sliding_counter",
    "policy",
    "decision",
    "ledger",
    "bucket",
    "counter",
    "line",
    "ticket",
    "store",
    "settle",
    "state",
    "keyed_buckets",
    "keyed_ledgers",
    "keyed_state",
    "account",
    "handle",
    "keyed_handle",
    "future",
    "keyed_future",
    "service",
    "layer",
    "keyed",
    "keyed_waiting",
    "loom_models",
];
const REDIS: [&str; 29] = [
    "policy",
    "failure",
    "key",
    "script",
    "lease",
    "limit_policy",
    "source",
    "lane",
    "lanes",
    "away",
    "code",
    "told",
    "asker",
    "book",
    "limiter",
    "limits",
    "envelope",
    "codec",
    "names",
    "store_policy",
    "store_stats",
    "far",
    "far_read",
    "far_write",
    "store",
    "behind",
    "watch",
    "listener",
    "tiered",
];
const CACHE: [&str; 20] = [
    "key", "policy", "keep", "life", "entry", "hashed", "status", "store", "memory", "flight", "tags", "stats",
    "state", "hooks", "handle", "load", "miss", "future", "service", "layer",
];
const RED: [&str; 11] =
    ["policy", "buckets", "seconds", "stripe", "snapshot", "state", "permit", "handle", "future", "service", "layer"];
const TIMEOUT: [&str; 8] = ["policy", "state", "timer", "wait", "future", "handle", "service", "layer"];

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The code of a file without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The names that follow `prefix::`, alone or in braces, anywhere in the code.
fn imported(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in code.split(&format!("{prefix}::")).skip(1) {
        let list = match rest.strip_prefix('{') {
            None => rest,
            Some(inner) => {
                let mut depth = 1;
                let end = inner.find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth == 0
                });
                &inner[..end.unwrap()]
            }
        };
        let mut depth = 0;
        for part in list.split_inclusive([',', '{', '}']) {
            let name: String = part.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if depth == 0 && !name.is_empty() {
                names.insert(name);
            }
            depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
            if !rest.starts_with('{') {
                break;
            }
        }
    }
    names
}

fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(src()).unwrap();
    relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").into()
}

#[test]
fn imports_go_one_way() {
    for path in files(&src()) {
        let module = module_of(&path);
        for name in imported(&code(&path), "crate") {
            let allowed = if module == "lib" || LEAVES.contains(&module.as_str()) {
                true
            } else if CORE.contains(&module.as_str()) || PATTERNS.contains(&module.as_str()) {
                CORE.contains(&name.as_str())
            } else {
                // Backends and protocols.
                !LEAVES.contains(&name.as_str())
            };
            assert!(allowed || name == module, "{} imports crate::{name}", path.display());
        }
    }
}

#[test]
fn every_file_of_a_pattern_imports_only_files_above_it() {
    let folders: [(&str, &[&str]); 7] = [
        ("cache", &CACHE),
        ("circuit_breaker", &CIRCUIT_BREAKER),
        ("rate_limit", &RATE_LIMIT),
        ("redis", &REDIS),
        ("red", &RED),
        ("retry", &RETRY),
        ("timeout", &TIMEOUT),
    ];
    for (folder, order) in folders {
        for path in files(&src().join(folder)) {
            let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if ["mod", "model", "loom_models", "control"].contains(&file.as_str()) {
                continue;
            }
            let rank = |name: &str| order.iter().position(|known| *known == name);
            let own = rank(&file).unwrap_or_else(|| panic!("{folder}/{file} has no place in the order"));
            for name in imported(&code(&path), "super") {
                let other = rank(&name).unwrap_or_else(|| panic!("{folder}/{file} imports {name}"));
                assert!(other < own, "{folder}/{file} imports {name}, which stands below it");
            }
        }
    }
}

/// A new pattern has to say in which order its files are read.
#[test]
fn every_pattern_folder_has_an_order() {
    let known = ["cache", "circuit_breaker", "rate_limit", "red", "retry", "timeout"];
    for entry in fs::read_dir(src()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!PATTERNS.contains(&name.as_str()) || known.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn patterns_have_no_cfg_no_metrics_and_no_tracing() {
    for path in files(&src()).iter().filter(|path| PATTERNS.contains(&module_of(path).as_str())) {
        let code = code(path);
        for word in ["cfg(feature", "metrics::", "tracing::", "std::time::Instant", "Instant::now"] {
            assert!(!code.contains(word), "{} says {word}", path.display());
        }
    }
}

/// RED measures through `event/meter.rs`, so that a pattern stays without them.
#[test]
fn only_files_of_events_name_metrics_and_tracing() {
    for path in files(&src()) {
        let relative = path.strip_prefix(src()).unwrap().to_str().unwrap().to_owned();
        for (word, allowed) in
            [("::metrics::", ["event/meter.rs", "event/metrics.rs"]), ("::tracing::", ["event/tracing.rs"; 2])]
        {
            assert!(allowed.contains(&&*relative) || !code(&path).contains(word), "{relative} says {word}");
        }
    }
}

#[test]
fn pure_files_know_no_lock_no_async_and_no_tower() {
    for file in [
        "cache/key",
        "cache/policy",
        "cache/keep",
        "cache/life",
        "circuit_breaker/consecutive",
        "circuit_breaker/ring",
        "circuit_breaker/time_window",
        "circuit_breaker/in_flight",
        "circuit_breaker/tally",
        "circuit_breaker/open_time",
        "circuit_breaker/policy",
        "circuit_breaker/window",
        "circuit_breaker/probes",
        "circuit_breaker/machine",
        "rate_limit/quota",
        "rate_limit/token_bucket",
        "rate_limit/sliding_log",
        "rate_limit/sliding_counter",
        "rate_limit/policy",
        "rate_limit/ledger",
        "redis/policy",
        "redis/failure",
        "redis/key",
        "redis/script",
        "redis/limit_policy",
        "redis/lease",
        "redis/envelope",
        "redis/codec",
        "redis/names",
        "redis/store_policy",
        "red/buckets",
        "red/policy",
        "red/snapshot",
        "retry/backoff",
        "retry/decision",
        "retry/policy",
        "timeout/policy",
        "budget/settings",
        "budget/spent",
        "budget/cost",
    ] {
        let code = code(&src().join(format!("{file}.rs")));
        for word in ["Mutex", "Atomic", "async ", "tower::", "tokio::", "time::now", "poll"] {
            assert!(!code.contains(word), "{file} says {word}");
        }
    }
}

#[test]
fn the_clock_has_one_door() {
    for path in files(&src()).iter().filter(|path| module_of(path) != "time") {
        let code = code(path);
        for word in ["Instant::now", "SystemTime", "quanta"] {
            assert!(!code.contains(word), "{} says {word}", path.display());
        }
    }
}
