use std::io::Write as _;

use zeroize::ZeroizeOnDrop;

use super::*;

#[test]
fn a_file_that_cannot_be_filled_is_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    let full = file::create(&path, |file| {
        file.write_all(b"unbroken-private-AAAA")?;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    assert_eq!(
        full.expect_err("it is full").kind(),
        std::io::ErrorKind::StorageFull
    );
    assert!(!path.exists());
    KeyPair::from_private_bytes([1; 32])
        .save(&path)
        .expect("the place is free again");
}

#[cfg(unix)]
#[test]
fn a_file_is_its_owners_alone_before_anything_is_in_it() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().expect("a directory");
    let looked = file::create(&directory.path().join("key"), |file| {
        let mode = file.metadata()?.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        Ok(())
    });
    looked.expect("created");
}

/// That what holds a secret is of a type that wipes it is all that can be seen without `unsafe`.
#[test]
fn secrets_and_their_texts_are_of_types_that_wipe_them() {
    fn wipes<T: ZeroizeOnDrop>(_: &T) {}
    let Secret(shared) = KeyPair::from_private_bytes([1; 32]).private;
    wipes(&*shared);
    let PresharedKey(Secret(shared)) = PresharedKey::from([1; 32]);
    wipes(&*shared);
    let text = text::write(KeyKind::Private, &shared);
    assert_eq!(text.capacity(), text.len(), "it has grown");
    wipes(&text);
    wipes(&text::read(KeyKind::Private, text.as_bytes()).expect("its own"));
}

#[test]
fn clones_share_the_one_copy_of_a_secret() {
    let keys = KeyPair::from_private_bytes([1; 32]);
    assert!(std::ptr::eq(keys.private(), keys.clone().private()));
    let key = PresharedKey::from([1; 32]);
    assert!(std::ptr::eq(key.bytes(), key.clone().bytes()));
}

#[test]
fn a_key_that_was_shown_keeps_its_bytes_whatever_they_are() {
    assert_eq!(PublicKey::shown([0; 32]).as_bytes(), &[0; 32]);
}
