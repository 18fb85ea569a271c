//! The file system as a process sees it. What a crash leaves is tested beside [`super::crash`].

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;

/// A mounted empty one; none where that cannot be, which is said.
fn mounted() -> Option<FaultFs> {
    if let Err(why) = FaultFs::available() {
        let _ = writeln!(io::stderr(), "\n******** SKIPPED: {why} ********\n");
        return None;
    }
    Some(FaultFs::mount(Image::default()).unwrap())
}

#[test]
fn files_are_made_linked_renamed_listed_and_removed() {
    let Some(fs) = mounted() else { return };
    let at = |name: &str| fs.path().join(name);
    fs::create_dir_all(at("db/deep")).unwrap();
    fs::write(at("db/a"), b"one").unwrap();
    fs::hard_link(at("db/a"), at("db/b")).unwrap();
    fs::rename(at("db/b"), at("db/deep/c")).unwrap();
    assert_eq!(fs::read(at("db/deep/c")).unwrap(), b"one");
    assert_eq!(fs::metadata(at("db/a")).unwrap().nlink(), 2);
    let open = File::open(at("db/a")).unwrap();
    fs::remove_file(at("db/a")).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 1);
    // More entries than one answer holds, removed while they are listed.
    for i in 0..500 {
        fs::write(at(&format!("file-with-a-long-name-{i}")), b"").unwrap();
    }
    let mut listed = 0;
    for entry in fs::read_dir(fs.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
            listed += 1;
        }
    }
    assert_eq!(listed, 500);
    assert_eq!(
        fs::remove_dir(at("db")).unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
    drop(open);
    let paths: Vec<String> = fs.image().files().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["db/deep/c"]);
}

#[test]
fn the_planned_operation_fails_and_the_next_does_not() {
    let Some(fs) = mounted() else { return };
    let file = File::create(fs.path().join("000001.log")).unwrap();
    fs.plan(Fault {
        ops: vec![Op::Sync],
        class: None,
        nth: 2,
        times: 1,
        errno: EIO,
    });
    (&file).write_all(b"one").unwrap();
    file.sync_all().unwrap();
    (&file).write_all(b"two").unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    file.sync_all().unwrap();
    File::open(fs.path()).unwrap().sync_all().unwrap();
    assert_eq!(fs.caused().len(), 1);
    assert_eq!(fs.tried(&[Op::Sync], None), 3);
    drop(file);
    let run = fs.unmount().unwrap();
    let left = run.crashed(Unsynced::Kept);
    let bytes = left.bytes(left.at("000001.log").unwrap()).unwrap();
    assert_eq!(
        bytes,
        b"one",
        "what the failed fsync should have brought is nowhere:\n{}",
        run.trace(run.steps.len(), 9)
    );
}

#[test]
fn a_full_disk_takes_what_fits_and_says_so() {
    let Some(fs) = mounted() else { return };
    fs.set_capacity(Some(fs.used() + 3 * 4096));
    let path = fs.path().join("a");
    let error = fs::write(&path, vec![7; 20_000]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(ENOSPC));
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 * 4096);
    fs.set_capacity(None);
    fs::write(&path, vec![7; 20_000]).unwrap();
}

#[test]
fn without_power_nothing_changes_any_more() {
    let Some(fs) = mounted() else { return };
    let path = fs.path().join("a");
    fs::write(&path, b"before").unwrap();
    fs.cut_power();
    assert!(fs::write(fs.path().join("b"), b"after").is_err());
    assert!(fs::remove_file(&path).is_err());
    assert!(File::open(&path).unwrap().sync_all().is_err());
    let run = fs.unmount().unwrap();
    assert_eq!(run.crashed(Unsynced::Kept).files().len(), 1);
    assert_eq!(run.crashed(Unsynced::Lost).files().len(), 0);
}

#[test]
fn a_page_that_cannot_be_read_fails_and_those_beside_it_do_not() {
    let Some(fs) = mounted() else { return };
    let path = fs.path().join("a");
    fs::write(&path, vec![7; 3 * 4096]).unwrap();
    // As another process finds it: nothing of it is in memory.
    let run = fs.unmount().unwrap();
    let fs = FaultFs::mount(run.crashed(Unsynced::Kept)).unwrap();
    fs.make_unreadable("a", 5_000);
    let path = fs.path().join("a");
    let file = File::open(&path).unwrap();
    let mut page = vec![0; 4096];
    for (at, readable) in [(0, true), (4096, false), (8192, true)] {
        let read = file.read_exact_at(&mut page, at);
        match readable {
            true => assert!(read.is_ok() && page.iter().all(|byte| *byte == 7), "{read:?}"),
            false => assert_eq!(read.unwrap_err().raw_os_error(), Some(EIO)),
        }
    }
}
