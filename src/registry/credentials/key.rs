//! Where the keys of stored secrets come from: a file or a variable of the operator's, else a file of our own.
//!
//! There may be several, one a line. The first seals, all open: so a key is changed by putting the new one in front.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::CredentialsError;

const KEY_BYTES: usize = 32;
/// Some keys, with room for comments.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const VARIABLE: &str = "POSTRIDER_CREDENTIALS_KEY";
const OWN_FILE_NAME: &str = "credentials.key";

/// One key.
pub(super) struct Key {
    id: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Key {
    fn new() -> Result<Self, CredentialsError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| CredentialsError::Random)?;
        Ok(Self::of(bytes))
    }

    fn of(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let hash = digest::digest(&digest::SHA256, bytes.as_slice());
        let (first, _) = hash.as_ref().split_at(8);
        Self { id: BASE64.encode(first), bytes }
    }

    /// Says which key it is, and nothing of it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    fn line(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.bytes.as_slice()) + "\n")
    }
}

/// The keys that there are; at least one.
pub(super) struct Keys {
    first: Key,
    others: Vec<Key>,
}

impl Keys {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut keys = lines.map(|line| {
            let wrong = "each line must be 32 random bytes in base64, as `openssl rand -base64 32` prints them";
            let decoded = Zeroizing::new(BASE64.decode(line).map_err(|_| wrong)?);
            let mut bytes = Zeroizing::new([0; KEY_BYTES]);
            if decoded.len() != KEY_BYTES {
                return Err(wrong);
            }
            bytes.copy_from_slice(&decoded);
            Ok(Key::of(bytes))
        });
        let first = keys.next().ok_or("there is no key in it")??;
        Ok(Self { first, others: keys.collect::<Result<_, _>>()? })
    }

    /// The one that seals.
    pub(super) fn first(&self) -> &Key {
        &self.first
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Key> {
        std::iter::once(&self.first).chain(&self.others).find(|key| key.id == id)
    }
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub(super) enum KeySource {
    /// The operator's file.
    File(PathBuf),
    /// The operator's variable.
    Environment,
    /// Our own file in the data folder.
    Own(PathBuf),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Own(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str(VARIABLE),
        }
    }
}

impl KeySource {
    pub(super) fn find(data_dir: &Path, file: Option<&Path>) -> Self {
        match file {
            Some(path) => Self::File(path.to_owned()),
            None if std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty()) => Self::Environment,
            None => Self::Own(data_dir.join(OWN_FILE_NAME)),
        }
    }

    pub(super) fn load(&self) -> Result<Keys, CredentialsError> {
        let text = match self {
            // Others of the group may be the ones who manage keys.
            Self::File(path) => self.read(path, 0o027)?,
            Self::Own(path) => self.read(path, 0o077)?,
            Self::Environment => Zeroizing::new(std::env::var(VARIABLE).map_err(|_| self.wrong("it is not UTF-8"))?),
        };
        Keys::parse(&text).map_err(|why| self.wrong(why))
    }

    /// The keys; our own is made if it is not there.
    pub(super) fn load_or_create(&self) -> Result<Keys, CredentialsError> {
        match self {
            Self::Own(path) if !path.exists() => {
                self.write(path, &[&Key::new()?], Existing::Keep)?;
                self.load()
            }
            _ => self.load(),
        }
    }

    /// The keys to seal everything with again; where they are our own, with a new one in front.
    pub(super) fn renew(&self) -> Result<(Keys, bool), CredentialsError> {
        let Self::Own(path) = self else { return Ok((self.load()?, false)) };
        let Keys { first, mut others } = self.load_or_create()?;
        others.insert(0, first);
        let keys = Keys { first: Key::new()?, others };
        let lines: Vec<&Key> = std::iter::once(&keys.first).chain(&keys.others).collect();
        self.write(path, &lines, Existing::Replace)?;
        Ok((keys, true))
    }

    /// Forgets all keys of our own but the one that seals.
    pub(super) fn keep_first(&self, keys: &Keys) -> Result<(), CredentialsError> {
        match self {
            Self::Own(path) => self.write(path, &[keys.first()], Existing::Replace),
            Self::File(_) | Self::Environment => Ok(()),
        }
    }

    fn read(&self, path: &Path, refused: u32) -> Result<Zeroizing<String>, CredentialsError> {
        let io = |err: io::Error| self.wrong(&err.to_string());
        let file = File::open(path).map_err(io)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
            if mode & refused != 0 {
                return Err(self.wrong(&format!("it is open to other users (mode {mode:o}); run `chmod 600` on it")));
            }
        }
        #[cfg(not(unix))]
        let _unused = refused;
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(io)?;
        Ok(text)
    }

    /// Writes keys whole or not at all, readable by nobody else.
    fn write(&self, path: &Path, keys: &[&Key], existing: Existing) -> Result<(), CredentialsError> {
        let written = || {
            create_folder(path)?;
            let folder = path.parent().unwrap_or(Path::new("."));
            let mut draft = tempfile::NamedTempFile::new_in(folder)?;
            for key in keys {
                draft.write_all(key.line().as_bytes())?;
            }
            draft.as_file().sync_all()?;
            match existing {
                Existing::Replace => drop(draft.persist(path)?),
                // Whoever was faster has made the key that others use already.
                Existing::Keep => match draft.persist_noclobber(path) {
                    Err(err) if err.error.kind() == io::ErrorKind::AlreadyExists => {}
                    persisted => drop(persisted?),
                },
            }
            // The name is durable only when its folder is.
            if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        written().map_err(|err: io::Error| self.wrong(&err.to_string()))
    }

    fn wrong(&self, why: &str) -> CredentialsError {
        CredentialsError::Key(self.to_string(), why.to_owned())
    }
}

/// What happens to a file that is there.
#[derive(Clone, Copy)]
enum Existing {
    Keep,
    Replace,
}

/// Makes the folder that a file is to be in.
pub(super) fn create_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    if fs::metadata(folder).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
