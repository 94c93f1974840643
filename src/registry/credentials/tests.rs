//! What the store of credentials promises: sealed, private, rekeyed without loss.

use std::fs;

use tempfile::{TempDir, tempdir};

use super::*;

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn credentials(folder: &TempDir) -> Credentials {
    Credentials::new(folder.path(), &CredentialsConfig::default())
}

fn read(credentials: &Credentials, account: &str) -> Option<String> {
    let read = credentials.read(&name(account), Field::Password).unwrap();
    read.map(|secret| secret.expose_secret().to_owned())
}

fn write(credentials: &Credentials, account: &str, secret: &str) {
    credentials.write(&name(account), Field::Password, &SecretString::from(secret)).unwrap();
}

fn key_file(folder: &TempDir, lines: &str) -> Credentials {
    let path = folder.path().join("operator.key");
    fs::write(&path, lines).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Credentials::new(folder.path(), &CredentialsConfig { key_file: Some(path) })
}

#[test]
fn a_secret_comes_back_from_disk_and_is_not_readable_there() {
    let folder = tempdir().unwrap();
    assert_eq!(read(&credentials(&folder), "alice"), None);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "reading makes nothing");
    write(&credentials(&folder), "alice", "first secret");
    write(&credentials(&folder), "alice", "s3cret of alice");
    assert_eq!(read(&credentials(&folder), "alice").as_deref(), Some("s3cret of alice"));
    assert_eq!(read(&credentials(&folder), "bob"), None);
    assert!(credentials(&folder).read(&name("alice"), Field::RefreshToken).unwrap().is_none());
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"s3cret "), "{path:?}");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600, "{path:?}");
        }
    }
    assert!(credentials(&folder).remove(&name("alice"), Field::Password).unwrap());
    assert!(!credentials(&folder).remove(&name("alice"), Field::Password).unwrap());
    assert_eq!(read(&credentials(&folder), "alice"), None);
    assert!(!format!("{:?}", credentials(&folder)).contains("secret"));
}

#[test]
fn a_row_of_another_account_or_a_changed_one_does_not_open() {
    let folder = tempdir().unwrap();
    write(&credentials(&folder), "alice", "of alice");
    let raw = Connection::open(folder.path().join(Credentials::FILE_NAME)).unwrap();
    raw.execute("INSERT INTO credential SELECT 'mallory', field, key_id, nonce, sealed FROM credential", []).unwrap();
    let stolen = credentials(&folder).read(&name("mallory"), Field::Password);
    assert!(matches!(stolen, Err(CredentialsError::Sealed(..))));
    raw.execute("UPDATE credential SET sealed = zeroblob(24) WHERE account = 'alice'", []).unwrap();
    assert!(matches!(credentials(&folder).read(&name("alice"), Field::Password), Err(CredentialsError::Sealed(..))));
}

#[test]
fn our_own_key_is_changed_while_others_hold_the_store_open() {
    let folder = tempdir().unwrap();
    let server = credentials(&folder);
    write(&server, "alice", "a");
    write(&server, "bob", "b");
    let key = folder.path().join("credentials.key");
    let before = fs::read_to_string(&key).unwrap();
    let done = credentials(&folder).rekey().unwrap();
    assert_eq!((done.secrets, done.is_new_key), (2, true));
    let after = fs::read_to_string(&key).unwrap();
    assert!(after != before && after.lines().count() == 1);
    assert_eq!((read(&server, "alice").as_deref(), read(&server, "bob").as_deref()), (Some("a"), Some("b")));
    write(&server, "bob", "c");
    assert_eq!(read(&credentials(&folder), "bob").as_deref(), Some("c"));
    fs::write(&key, before).unwrap();
    assert!(credentials(&folder).read(&name("alice"), Field::Password).is_err(), "the old key opens nothing");
}

#[test]
fn a_change_of_keys_that_was_cut_short_loses_nothing() {
    let folder = tempdir().unwrap();
    write(&credentials(&folder), "alice", "a");
    // As if the process had ended between the new key's file and the commit.
    let (keys, is_new) = credentials(&folder).keys.renew().unwrap();
    assert!(is_new && keys.first().id() != "");
    assert_eq!(read(&credentials(&folder), "alice").as_deref(), Some("a"));
    credentials(&folder).rekey().unwrap();
    assert_eq!(read(&credentials(&folder), "alice").as_deref(), Some("a"));
    assert_eq!(fs::read_to_string(folder.path().join("credentials.key")).unwrap().lines().count(), 1);
}

#[test]
fn the_operators_new_key_goes_in_front_and_the_old_one_may_go_after_rekey() {
    let folder = tempdir().unwrap();
    let (old, new) = (BASE64_OF_ONES, BASE64_OF_TWOS);
    write(&key_file(&folder, &format!("# made by hand\n{old}\n")), "alice", "a");
    assert!(!folder.path().join("credentials.key").exists(), "no key of our own beside the operator's");
    let both = key_file(&folder, &format!("{new}\n{old}\n"));
    assert_eq!(read(&both, "alice").as_deref(), Some("a"));
    let done = both.rekey().unwrap();
    assert_eq!((done.secrets, done.is_new_key), (1, false));
    assert_eq!(read(&key_file(&folder, new), "alice").as_deref(), Some("a"));
    let gone = key_file(&folder, old).read(&name("alice"), Field::Password);
    assert!(matches!(gone, Err(CredentialsError::Sealed(..))));
}

const BASE64_OF_ONES: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const BASE64_OF_TWOS: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

#[test]
fn a_key_that_is_none_or_open_to_others_is_refused_with_its_place_and_without_itself() {
    let folder = tempdir().unwrap();
    for wrong in ["", "hunter2", "AQEBAQ=="] {
        let error = key_file(&folder, wrong).write(&name("a"), Field::Password, &SecretString::from("x")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("operator.key") && !text.contains("hunter2"), "{text}");
    }
    #[cfg(unix)]
    {
        let store = key_file(&folder, BASE64_OF_ONES);
        let path = folder.path().join("operator.key");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let error = store.write(&name("a"), Field::Password, &SecretString::from("x")).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
