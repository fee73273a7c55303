use redis::Script;

/// The scripts that the adapter runs in the server. Each is atomic: what it checks still holds when it
/// acts on it.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) open_bus: Script,
    pub(super) open_group: Script,
    pub(super) remove_group: Script,
    pub(super) reap: Script,
    pub(super) pulse: Script,
    pub(super) acquire: Script,
    pub(super) release: Script,
    pub(super) read: Script,
    pub(super) acknowledge: Script,
    pub(super) attempt: Script,
    pub(super) bury: Script,
    pub(super) take_letters: Script,
    pub(super) trim: Script,
}

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(
            include_str!("lua/common.lua"),
            include_str!(concat!("lua/", $name, ".lua"))
        ))
    };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            open_bus: script!("open_bus"),
            open_group: script!("open_group"),
            remove_group: script!("remove_group"),
            reap: script!("reap"),
            pulse: script!("pulse"),
            acquire: script!("acquire"),
            release: script!("release"),
            read: script!("read"),
            acknowledge: script!("acknowledge"),
            attempt: script!("attempt"),
            bury: script!("bury"),
            take_letters: script!("take_letters"),
            trim: script!("trim"),
        }
    }
}
