//! Sockets, and what is asked through one.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use super::{check, check_long, owned};

/// Two connected sockets that keep messages apart.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array holds two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) })?;
    Ok((owned(ends[0]), owned(ends[1])))
}

/// Brings the loopback interface of this process's network namespace up (netdevice(7)).
pub fn raise_loopback() -> io::Result<()> {
    // SAFETY: the structure is plain data that names an interface and its flags. Any socket will do.
    unsafe {
        let socket = owned(check(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request)).map(drop)
    }
}

/// Reads one message of a unix socket, and the descriptor that comes with it; 0 bytes are the end.
pub fn receive_with_fd(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 4];
    // SAFETY: the message points at live buffers of the given lengths; a descriptor in it is new and this process's own.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let count = loop {
            let count = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
            match check_long(count as libc::c_long) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result? as usize,
            }
        };
        let header = libc::CMSG_FIRSTHDR(&message);
        let given =
            !header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS;
        let fd = given.then(|| owned(std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>())));
        Ok((count, fd))
    }
}

/// Sends bytes, and a descriptor with them, over a unix socket.
pub fn send_with_fd(socket: RawFd, bytes: &[u8], fd: Option<RawFd>) -> io::Result<()> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let mut control = [0u64; 4];
    // SAFETY: the message points at live buffers of the given lengths; one control header with one descriptor fits.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        if let Some(fd) = fd {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            std::ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), fd);
        }
        check_long(libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL) as libc::c_long).map(drop)
    }
}
