//! A call beside whoever moves its key or lets it leave, in every order: `RUSTFLAGS="--cfg buttress_loom" cargo test --lib loom`.

use std::sync::Arc;

use loom::thread;

use super::*;

const NOW: u64 = 10;

/// A call of this hash at a time at which whoever was called before is idle. Whether there was a place for it.
fn call(shard: &Shard, hash: u64) -> bool {
    let to = |word: u64| Ok::<_, Infallible>(word.max(NOW) + 1);
    shard.change(hash, to).or_else(|| shard.insert(hash, |word| word <= NOW, to)).is_some()
}

fn word(shard: &Shard, hash: u64) -> Option<u64> {
    shard.change(hash, Ok::<_, Infallible>).map(|Ok((word, _))| word)
}

#[test]
fn who_is_called_while_leaving_pays_for_nobody_else() {
    loom::model(|| {
        let shard = Arc::new(Shard::new(1));
        shard.insert(1 << 8, |_| false, |_| Ok::<_, Infallible>(NOW - 1));
        let other = Arc::clone(&shard);
        let newcomer = thread::spawn(move || call(&other, 2 << 8));
        let has_place = [call(&shard, 1 << 8), newcomer.join().unwrap()];
        assert_eq!(has_place.map(u8::from).iter().sum::<u8>(), 1, "{has_place:?}");
        assert_eq!([1 << 8, 2 << 8].map(|hash| word(&shard, hash)), has_place.map(|has| has.then_some(NOW + 1)));
        assert_eq!(shard.table.lock().len, 1);
    });
}

#[test]
fn who_is_called_while_the_table_doubles_is_counted() {
    loom::model(|| {
        let shard = Arc::new(Shard::new(10));
        // Of the five one moves, that of the highest bits. All words are alike, but for whose they are.
        let hashes = [u64::MAX, 1 << 8, 2 << 8, 3 << 8, 4 << 8];
        for hash in &hashes[..4] {
            assert!(call(&shard, *hash));
        }
        let other = Arc::clone(&shard);
        let newcomer = thread::spawn(move || call(&other, 4 << 8));
        assert!(call(&shard, u64::MAX) && newcomer.join().unwrap());
        let words = hashes.map(|hash| word(&shard, hash));
        assert_eq!(words, [NOW + 2, NOW + 1, NOW + 1, NOW + 1, NOW + 1].map(Some));
    });
}

/// In its second line, though there is a place in its first.
fn away_from_home(hash: u64) -> Arc<Shard> {
    let shard = Shard::new(10);
    assert!(shard.grow(0));
    assert_eq!(places(hash, 1), [0, 1]);
    assert!(shard.line(1, 1).unwrap().put(hash, NOW + 1));
    shard.table.lock().len = 1;
    Arc::new(shard)
}

fn settle(shard: &Arc<Shard>) -> thread::JoinHandle<()> {
    let shard = Arc::clone(shard);
    thread::spawn(move || {
        let _held = shard.table.lock();
        shard.settle(1);
    })
}

#[test]
fn who_is_called_on_the_way_to_its_first_line_is_counted() {
    loom::model(|| {
        let hash = 1 << 31;
        let shard = away_from_home(hash);
        let settling = settle(&shard);
        assert!(call(&shard, hash));
        settling.join().unwrap();
        assert_eq!((word(&shard, hash), shard.table.lock().len), (Some(NOW + 2), 1));
        assert_eq!([0, 1].map(|index| shard.line(index, 1).unwrap().owner(0)), [hash, NOBODY]);
    });
}

#[test]
fn what_is_given_back_on_the_way_to_the_first_line_is_not_lost() {
    loom::model(|| {
        let hash = 1 << 31;
        let shard = away_from_home(hash);
        let settling = settle(&shard);
        assert_eq!(shard.change_known(hash, |word| Ok(word - 1)), Some(Ok((NOW + 1, NOW))));
        settling.join().unwrap();
        assert_eq!(word(&shard, hash), Some(NOW));
    });
}
