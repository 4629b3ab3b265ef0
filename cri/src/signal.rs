//! The signals by which containers are asked to end.

/// CRI's numbers of signals, which are not the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Signal {
    RuntimeDefault = 0,
    Sigabrt = 1,
    Sigalrm = 2,
    Sigbus = 3,
    Sigchld = 4,
    Sigcld = 5,
    Sigcont = 6,
    Sigfpe = 7,
    Sighup = 8,
    Sigill = 9,
    Sigint = 10,
    Sigio = 11,
    Sigiot = 12,
    Sigkill = 13,
    Sigpipe = 14,
    Sigpoll = 15,
    Sigprof = 16,
    Sigpwr = 17,
    Sigquit = 18,
    Sigsegv = 19,
    Sigstkflt = 20,
    Sigstop = 21,
    Sigsys = 22,
    Sigterm = 23,
    Sigtrap = 24,
    Sigtstp = 25,
    Sigttin = 26,
    Sigttou = 27,
    Sigurg = 28,
    Sigusr1 = 29,
    Sigusr2 = 30,
    Sigvtalrm = 31,
    Sigwinch = 32,
    Sigxcpu = 33,
    Sigxfsz = 34,
    Sigrtmin = 35,
    Sigrtminplus1 = 36,
    Sigrtminplus2 = 37,
    Sigrtminplus3 = 38,
    Sigrtminplus4 = 39,
    Sigrtminplus5 = 40,
    Sigrtminplus6 = 41,
    Sigrtminplus7 = 42,
    Sigrtminplus8 = 43,
    Sigrtminplus9 = 44,
    Sigrtminplus10 = 45,
    Sigrtminplus11 = 46,
    Sigrtminplus12 = 47,
    Sigrtminplus13 = 48,
    Sigrtminplus14 = 49,
    Sigrtminplus15 = 50,
    Sigrtmaxminus14 = 51,
    Sigrtmaxminus13 = 52,
    Sigrtmaxminus12 = 53,
    Sigrtmaxminus11 = 54,
    Sigrtmaxminus10 = 55,
    Sigrtmaxminus9 = 56,
    Sigrtmaxminus8 = 57,
    Sigrtmaxminus7 = 58,
    Sigrtmaxminus6 = 59,
    Sigrtmaxminus5 = 60,
    Sigrtmaxminus4 = 61,
    Sigrtmaxminus3 = 62,
    Sigrtmaxminus2 = 63,
    Sigrtmaxminus1 = 64,
    Sigrtmax = 65,
}

impl Signal {
    /// The first of the signals that has this number in Linux on x86-64 and arm64 (signal(7)).
    pub fn of_number(number: i32) -> Option<Signal> {
        let all = (1..=Signal::Sigrtmax as i32).filter_map(|value| Signal::try_from(value).ok());
        all.into_iter().find(|signal| signal.number() == Some(number))
    }

    /// The kernel's number.
    pub fn number(self) -> Option<i32> {
        const PLAIN: [Signal; 31] = [
            Signal::Sighup,
            Signal::Sigint,
            Signal::Sigquit,
            Signal::Sigill,
            Signal::Sigtrap,
            Signal::Sigabrt,
            Signal::Sigbus,
            Signal::Sigfpe,
            Signal::Sigkill,
            Signal::Sigusr1,
            Signal::Sigsegv,
            Signal::Sigusr2,
            Signal::Sigpipe,
            Signal::Sigalrm,
            Signal::Sigterm,
            Signal::Sigstkflt,
            Signal::Sigchld,
            Signal::Sigcont,
            Signal::Sigstop,
            Signal::Sigtstp,
            Signal::Sigttin,
            Signal::Sigttou,
            Signal::Sigurg,
            Signal::Sigxcpu,
            Signal::Sigxfsz,
            Signal::Sigvtalrm,
            Signal::Sigprof,
            Signal::Sigwinch,
            Signal::Sigio,
            Signal::Sigpwr,
            Signal::Sigsys,
        ];
        match self {
            Signal::RuntimeDefault => None,
            Signal::Sigcld => Signal::Sigchld.number(),
            Signal::Sigiot => Signal::Sigabrt.number(),
            Signal::Sigpoll => Signal::Sigio.number(),
            real_time if real_time >= Signal::Sigrtmin => Some(34 + real_time as i32 - Signal::Sigrtmin as i32),
            plain => PLAIN.iter().zip(1..).find(|(one, _)| **one == plain).map(|(_, number)| number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_kernels_numbers() {
        let all: Vec<Signal> = (1..=65).map(|value| Signal::try_from(value).unwrap()).collect();
        assert!(all.iter().all(|signal| (1..=64).contains(&signal.number().unwrap())));
        for number in (1..=31).chain(34..=64) {
            assert_eq!(Signal::of_number(number).unwrap().number(), Some(number));
        }
        assert_eq!(Signal::of_number(32), None);
        assert_eq!(
            (Signal::Sigterm.number(), Signal::Sigrtmin.number(), Signal::Sigrtmax.number()),
            (Some(15), Some(34), Some(64))
        );
        assert_eq!((Signal::Sigrtmaxminus14.number(), Signal::Sigrtminplus15.number()), (Some(50), Some(49)));
        assert_eq!(Signal::RuntimeDefault.number(), None);
    }
}
