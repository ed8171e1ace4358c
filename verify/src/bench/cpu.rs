//! The CPU's name, and threads that stay on one core.

/// Why threads cannot be placed as asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CpuError {
    /// The process may not run there.
    #[error("core is {got}, expected one of {expected:?}, the cores that this process may use")]
    Core { got: usize, expected: Vec<usize> },
    /// More threads than cores.
    #[error("threads is {got}, expected 1 to {most}, the number of cores that this process may use")]
    Threads { got: usize, most: usize },
    /// The operating system refuses.
    #[error("pinning to core {core}: {source}")]
    Pin { core: usize, source: std::io::Error },
}

/// What the CPU calls itself.
pub fn name() -> String {
    #[cfg(target_arch = "x86_64")]
    if let Some(brand) = raw_cpuid::CpuId::new().get_processor_brand_string() {
        return brand.as_str().trim().to_string();
    }
    format!("unknown {}", std::env::consts::ARCH)
}

/// Cores for a number of threads: the one asked for, or the one that this thread happens to run on, then others.
/// This thread is pinned to the first; [`pin`] is for the others. Where there is no pinning, cores have no numbers.
///
/// # Errors
/// A core that this process may not use, no or more threads than it has cores.
pub fn place(core: Option<usize>, threads: usize) -> Result<Vec<Option<usize>>, CpuError> {
    let allowed = allowed();
    let most =
        if allowed.is_empty() { std::thread::available_parallelism().map_or(1, Into::into) } else { allowed.len() };
    if threads == 0 || threads > most {
        return Err(CpuError::Threads { got: threads, most });
    }
    let first = match core {
        Some(got) if !allowed.contains(&got) => return Err(CpuError::Core { got, expected: allowed }),
        None if allowed.is_empty() => return Ok(vec![None; threads]),
        None => current(),
        core => core,
    };
    let others = allowed.into_iter().filter(|&other| Some(other) != first).map(Some);
    let cores: Vec<_> = std::iter::once(first).chain(others).take(threads).collect();
    pin(cores[0])?;
    Ok(cores)
}

/// Keeps this thread on a core.
///
/// # Errors
/// What the operating system says.
pub fn pin(core: Option<usize>) -> Result<(), CpuError> {
    #[cfg(target_os = "linux")]
    if let Some(core) = core {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set).map_err(|e| CpuError::Pin { core, source: e.into() })?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = core;
    Ok(())
}

#[cfg(target_os = "linux")]
fn allowed() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

#[cfg(target_os = "linux")]
fn current() -> Option<usize> {
    Some(rustix::thread::sched_getcpu())
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
fn current() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_placed_on_cores_of_their_own() {
        let allowed = allowed();
        // On a thread of its own, because it stays pinned.
        let placed = std::thread::spawn(|| place(None, 1).unwrap()).join().unwrap();
        assert_eq!(placed.len(), 1);
        assert!(matches!(place(None, 0), Err(CpuError::Threads { got: 0, .. })));
        assert!(matches!(place(None, 1 << 20), Err(CpuError::Threads { .. })));
        assert!(matches!(place(Some(1 << 20), 1), Err(CpuError::Core { .. })));
        if let [.., last] = allowed[..] {
            let cores = std::thread::spawn(move || place(Some(last), allowed.len()).unwrap()).join().unwrap();
            assert_eq!(cores[0], Some(last));
            let distinct: std::collections::HashSet<_> = cores.iter().collect();
            assert_eq!(distinct.len(), cores.len());
        }
        assert!(!name().is_empty());
    }
}
