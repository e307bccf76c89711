//! What a process costs, from `/proc`.

use std::fs;

/// Clock ticks of `/proc/<pid>/stat` in a second: `USER_HZ`, 100 on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Self {
        Self::read(&format!("/proc/{pid}/stat")).unwrap_or_default()
    }

    /// That of the threads whose name is `name`.
    pub(crate) fn of_threads(pid: u32, name: &str) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let named = threads
            .map(|thread| thread.path())
            .filter(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name));
        named.filter_map(|thread| Self::read(thread.join("stat").to_str()?)).fold(Self::default(), |sum, cpu| Self {
            user_us: sum.user_us + cpu.user_us,
            system_us: sum.system_us + cpu.system_us,
        })
    }

    /// Fields 14 and 15, counted from behind the name, which may hold anything.
    fn read(path: &str) -> Option<Self> {
        let stat = fs::read_to_string(path).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut micros = || Some(fields.next()?.parse::<u64>().ok()? * (1_000_000 / TICKS_PER_SECOND));
        Some(Self { user_us: micros()?, system_us: micros()? })
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user_us: self.user_us - earlier.user_us, system_us: self.system_us - earlier.system_us }
    }
}

/// Resident memory, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>();
    kilobytes.map_or(0, |kilobytes| kilobytes << 10)
}
