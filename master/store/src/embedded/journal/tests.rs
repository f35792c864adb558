use super::*;

/// What was appended, frame by frame: first revisions, records.
type Frames<'a> = &'a [(u64, &'a [&'a str])];

fn write(journal: &mut Journal, frames: Frames<'_>) {
    for (first, records) in frames {
        let records: Vec<Vec<u8>> = records.iter().map(|record| record.as_bytes().to_vec()).collect();
        assert!(journal.append(*first, &records).unwrap());
    }
}

fn written(frames: Frames<'_>) -> (tempfile::TempDir, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("journal")).unwrap();
    journal.clear();
    write(&mut journal, frames);
    (folder, journal)
}

fn texts(found: Result<Vec<(u64, Vec<u8>)>, JournalError>) -> Vec<(u64, String)> {
    found.unwrap().into_iter().map(|(revision, bytes)| (revision, String::from_utf8(bytes).unwrap())).collect()
}

fn found(journal: &Journal, last: u64) -> Vec<(u64, String)> {
    texts(journal.records(last))
}

fn bytes(journal: &Journal) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    journal.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn what_is_appended_is_found_by_the_next_to_open_it() {
    let (folder, journal) = written(&[(7, &["a", "b"]), (9, &["c"])]);
    drop(journal);
    let journal = Journal::open(&folder.path().join("journal")).unwrap();
    let all = [(7, "a".to_owned()), (8, "b".into()), (9, "c".into())];
    assert_eq!(found(&journal, 6), all);
    assert_eq!(found(&journal, 7), all[1..], "what the database has is passed over");
    assert_eq!(found(&journal, 9), []);
}

#[test]
fn a_torn_last_frame_is_as_if_it_was_never_written() {
    let long = "x".repeat(3 * SECTOR);
    let (_folder, journal) = written(&[(2, &["a"]), (3, &[&long])]);
    let whole = bytes(&journal);
    let before = [(2, "a".to_owned())];
    for cut in (SECTOR..SECTOR + HEAD + long.len()).step_by(7) {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        assert_eq!(texts(read(&torn, 1)), before, "cut at {cut}");
    }
    for sector in 1..4 {
        let mut torn = whole.clone();
        torn[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
        assert_eq!(texts(read(&torn, 1)), before, "sector {sector} is missing");
    }
}

#[test]
fn a_broken_frame_before_a_whole_one_is_damage() {
    let (_folder, journal) = written(&[(2, &["a"]), (3, &["b"]), (4, &["c"])]);
    for broken in [0, SECTOR] {
        let mut bytes = bytes(&journal);
        bytes[broken + HEAD + 4] ^= 1;
        assert!(matches!(read(&bytes, 1), Err(JournalError::Damaged(at)) if at == broken));
    }
}

#[test]
fn frames_of_the_round_before_are_not_read_again() {
    let (_folder, mut journal) = written(&[(2, &["a"]), (3, &["b"]), (4, &["c"])]);
    journal.clear();
    assert_eq!(found(&journal, 4), []);
    write(&mut journal, &[(5, &["d"])]);
    assert_eq!(found(&journal, 4), [(5, "d".to_owned())]);
    let mut torn = bytes(&journal);
    torn[HEAD] ^= 1;
    assert_eq!(texts(read(&torn, 4)), []);
}

#[test]
fn another_store_s_journal_is_refused() {
    let (_folder, journal) = written(&[(7, &["a"])]);
    assert!(matches!(journal.records(5), Err(JournalError::Gap { first: 7, last: 5 })));
}

#[test]
fn what_does_not_fit_is_left_to_the_database() {
    let (_folder, mut journal) = written(&[]);
    assert!(!journal.append(2, &[vec![b'x'; SIZE]]).unwrap());
    let half = vec![b'x'; SIZE / 2 - HEAD - 4];
    assert!(journal.append(2, std::slice::from_ref(&half)).unwrap());
    assert!(journal.append(3, std::slice::from_ref(&half)).unwrap());
    assert!(!journal.append(4, &[vec![b'x']]).unwrap());
    assert_eq!(found(&journal, 1).len(), 2);
}
