use std::{
    hash::Hasher,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::*;

fn put(words: &Words<u64>, key: u64, word: u64) -> bool {
    words.change(&key, |word| word == 0, move |_| Ok::<_, Infallible>(word)).is_some()
}

fn look(words: &Words<u64>, key: u64) -> Option<u64> {
    words.change_known(&key, |word| word)
}

#[test]
fn a_word_is_changed_in_place() {
    let words = Words::new(10);
    for key in 0..5 {
        assert!(put(&words, key, key + 1));
    }
    assert_eq!(words.change_known(&3, |word| word + 10), Some(4));
    assert_eq!((look(&words, 3), look(&words, 7), words.len()), (Some(14), None, 5));
    words.change_all(|word| 2 * word);
    assert_eq!([0, 1, 2, 3, 4].map(|key| look(&words, key)), [2, 4, 6, 28, 10].map(Some));
}

#[test]
fn what_is_refused_changes_nothing() {
    let words = Words::new(10);
    let refuse = |word| words.change(&1_u64, |_| false, |_| Err::<u64, u64>(word));
    assert_eq!((refuse(7), words.len(), look(&words, 1)), (Some(Err(7)), 0, None));
    put(&words, 1, 5);
    assert_eq!((refuse(8), look(&words, 1)), (Some(Err(8)), Some(5)));
}

#[test]
fn who_is_idle_leaves_and_nobody_else_does() {
    for max_keys in [1, 100, 5_000] {
        let words = Words::new(max_keys);
        let all = || 0..10 * max_keys as u64;
        assert_eq!(all().filter(|key| put(&words, *key, 1)).count(), max_keys);
        // Shards fill unevenly.
        let kept: Vec<u64> = all().filter(|key| look(&words, *key).is_some()).collect();
        assert_eq!((kept.len(), words.len()), (max_keys, max_keys));
        assert!(!put(&words, u64::MAX, 1), "all places are taken for good");
        assert!(kept.iter().all(|key| look(&words, *key) == Some(1)));
        assert!(kept.iter().all(|key| put(&words, *key, 0)));
        assert!((0..100).all(|key| put(&words, u64::MAX - key, 0)), "who is idle makes room");
    }
}

/// What has become idle leaves although there would be room.
#[test]
fn a_crowd_that_has_gone_leaves_no_trail() {
    let words = Words::new(1_000_000);
    for key in 0..100_000 {
        put(&words, key, 0);
    }
    assert!(words.len() < 40_000, "{}", words.len());
}

#[test]
fn a_million_keys_keep_to_the_bound_and_every_place_is_used() {
    for max_keys in [1, 1_000, 10_007, 400_000] {
        let words = Words::new(max_keys);
        for key in 0..1_000_000 {
            put(&words, key, 1 + key % 3);
        }
        assert_eq!(words.len(), max_keys);
    }
}

/// So that most are found at once: before a shard doubles, a quarter of its keys have no place in their first lines.
#[test]
fn after_a_shard_has_doubled_nearly_all_are_in_their_first_lines() {
    let words = Words::new(1_000_000);
    let of =
        |index: usize| (words.shards[index].doublings.load(Ordering::Relaxed), words.shards[index].table.lock().len);
    let (mut key, mut grown) = (0, 0);
    while grown < 12 {
        let before: Vec<_> = (0..words.shards.len()).map(of).collect();
        put(&words, key, 1);
        key += 1;
        let Some(shard) = (0..before.len()).find(|index| of(*index).0 > before[*index].0) else { continue };
        let (doublings, keys) = of(shard);
        if keys < 1_000 {
            continue;
        }
        grown += 1;
        let shard = &words.shards[shard];
        let lines = (0..1 << doublings).map(|index| (index, shard.line(index, doublings).unwrap()));
        let owners = lines.flat_map(|(index, line)| (0..SLOTS).map(move |slot| (index, line.owner(slot))));
        let elsewhere =
            owners.filter(|(index, owner)| *owner != NOBODY && places(*owner, doublings)[0] != *index).count();
        assert!(elsewhere * 20 < keys, "{elsewhere} of {keys}");
    }
}

#[test]
fn a_key_takes_less_than_sixty_bytes() {
    for keys in [10_000, 50_000, 150_000, 300_000] {
        let made = allocation_counter::measure(|| {
            let words = Words::new(1_000_000);
            assert!((0..keys).all(|key| put(&words, key, 1)));
        });
        assert!(made.bytes_max < 60 * keys + 64 * 1024, "{keys}: {made:?}");
    }
}

/// Whatever order keys keep: each has a place, and the table is no larger than it is for others.
#[test]
fn keys_in_order_spread_as_well_as_others() {
    const KEYS: u64 = 60_000;
    let orders: [fn(u64) -> u64; 6] = [
        |n| n << 8,
        |n| n << 24,
        |n| n << 48,
        u64::reverse_bits,
        |n| n.wrapping_mul(0x0001_0001_0001_0001),
        |n| u64::MAX - n % 3 - ((n / 3) << 32),
    ];
    for order in orders {
        let words = Words::new(1_000_000);
        let made = allocation_counter::measure(|| assert!((0..KEYS).all(|n| put(&words, order(n), 1))));
        assert_eq!(words.len() as u64, KEYS);
        assert!(made.bytes_max < 60 * KEYS, "{made:?}");
    }
}

#[test]
fn a_huge_bound_allocates_nothing_in_advance() {
    let made = allocation_counter::measure(|| drop(Words::<u64>::new(usize::MAX)));
    assert!(made.bytes_max < 64 * 1024, "{made:?}");
}

/// Whoever found hashes that meet would find no more than that there is no place for them.
#[test]
fn keys_of_one_hash_are_one_key_and_those_of_one_line_take_no_endless_memory() {
    struct Same;
    impl Hash for Same {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }
    let words = Words::new(10);
    let call = || words.change(&Same, |_| false, |word| Ok::<_, Infallible>(word + 1));
    assert_eq!([call(), call()], [Some(Ok((0, 1))), Some(Ok((1, 2)))]);

    let shard = Shard::new(1_000);
    let made = allocation_counter::measure(|| {
        let places = (1..100).filter(|hash| shard.insert(*hash, |_| false, |_| Ok::<_, Infallible>(1)).is_some());
        assert_eq!(places.count(), SLOTS);
    });
    assert!(made.bytes_max < 16 * 1024, "{made:?}");
}

/// While keys come, and their tables double and they move in them, no call is lost.
#[test]
fn what_several_threads_count_is_the_number_of_calls() {
    const CALLS: u64 = 200_000;
    let (words, refused) = (Words::new(50_000), AtomicU64::new(0));
    let count = |thread: u64| {
        for call in 0..CALLS {
            let key = (call * call + 7 * thread * call) % 20_011;
            let called = words.change(&key, |_| false, |word| Ok::<_, Infallible>(word + 1));
            refused.fetch_add(u64::from(called.is_none()), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || count(thread)))));
    let counted: u64 = (0..20_011).filter_map(|key| look(&words, key)).sum();
    assert_eq!((counted, refused.into_inner()), (4 * CALLS, 0));
}

/// Who comes and goes beside others takes nothing with him: each key is idle between its calls, and keeps to what it counts.
#[test]
fn keys_that_leave_while_others_come_are_never_mistaken_for_one_another() {
    const KEYS: u64 = 64;
    let words = Words::new(KEYS as usize / 4);
    let call = |key: u64, round: u64| {
        // What tells whose word it is: the key in the lowest bits. Even rounds are idle.
        let mine = move |word: u64| if word == 0 || word % KEYS == key { Ok(round * KEYS + key) } else { Err(word) };
        words.change(&key, |word| (word / KEYS).is_multiple_of(2), mine)
    };
    let run =
        |thread: u64| (0..100_000).all(|round| !matches!(call((round * 7 + thread * 13) % KEYS, round), Some(Err(_))));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || run(thread))).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
}
