//! What the kernel of the host may lack: VLANs, ipvlan, SCTP and NFS. `cargo xtask test vm` has one with all of them.

use std::{
    fs::File,
    io::IoSliceMut,
    mem::size_of,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::mpsc::{Receiver, channel},
    thread,
};

use nix::{
    libc,
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, accept,
        bind, connect, listen, recv, recvmsg, send, socket,
    },
};

use crate::engine::{Engine, IMAGE};

/// A network on a bridge `wire`, with a container on it: a bridge without ports has no carrier.
fn wired() -> Engine {
    let engine = Engine::start();
    engine.ok(&["network", "create", "-o", "com.docker.network.bridge.name=wire", "plain"]);
    engine.ok(&["run", "-d", "--network", "plain", IMAGE, "sleep", "1000"]);
    engine
}

impl Engine {
    fn make(&self, driver: &str, name: &str, subnet: &str, options: &[&str]) {
        let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
        self.ok(&[&["network", "create", "-d", driver, "--subnet", subnet], &options[..], &[name]].concat());
    }

    fn has_link(&self, name: &str) -> bool {
        self.on_host(&["busybox", "ip", "link", "show", name]).status.success()
    }

    /// Whether a container is reached from another one on its network.
    #[track_caller]
    fn reaches(&self, network: &str) {
        self.ok(&["run", "-d", "--name", "there", "--network", network, IMAGE, "sleep", "1000"]);
        self.ok(&["run", "--rm", "--network", network, IMAGE, "ping", "-c", "1", "-W", "10", "there"]);
        self.ok(&["rm", "-f", "there"]);
    }
}

#[test]
#[ignore = "needs a kernel with VLANs: cargo xtask test vm"]
fn a_vlan_comes_with_its_first_network_and_goes_with_its_last() {
    let mut engine = wired();
    engine.make("macvlan", "first", "10.50.0.0/24", &["parent=wire.50"]);
    let described = engine.on_host(&["cat", "/proc/net/vlan/wire.50"]).ok();
    assert!(described.contains("VID: 50") && described.contains("Device: wire"), "{described}");
    engine.reaches("first");
    // The next network on it has no part in its making, and keeps it when the first goes.
    engine.make("macvlan", "second", "10.51.0.0/24", &["parent=wire.50"]);
    engine.ok(&["network", "rm", "first"]);
    assert!(engine.has_link("wire.50"));
    engine.reaches("second");
    // Nor does the next daemon take it for somebody else's.
    engine.crash();
    engine.ok(&["network", "rm", "second"]);
    assert!(!engine.has_link("wire.50"));

    let make = ["busybox", "ip", "link", "add", "link", "wire", "name", "wire.70", "type", "vlan", "id", "70"];
    engine.on_host(&make).ok();
    engine.make("macvlan", "third", "10.52.0.0/24", &["parent=wire.70"]);
    engine.reaches("third");
    engine.ok(&["network", "rm", "third"]);
    assert!(engine.has_link("wire.70"), "it was there before");
    // What cannot be made leaves nothing.
    let refused = engine.docker(&["network", "create", "-d", "macvlan", "-o", "parent=wire.0", "wrong"]).fails();
    assert!(refused.contains("vlan id must be between 1-4094, received: 0"), "{refused}");
    assert!(!engine.has_link("wire.0"));
}

#[test]
#[ignore = "needs a kernel with ipvlan: cargo xtask test vm"]
fn ipvlans_share_a_wire_and_its_ethernet_address() {
    let engine = wired();
    let of_parent = engine.on_host(&["busybox", "ip", "-o", "link", "show", "wire"]).ok();
    let of_parent = of_parent.split_once("link/ether ").and_then(|(_, rest)| rest.split(' ').next()).unwrap();
    for (name, subnet, mode) in [("two", "10.60.0.0/24", "l2"), ("three", "10.61.0.0/24", "l3")] {
        // One parent has one mode at a time.
        engine.make("ipvlan", name, subnet, &["parent=wire", &format!("ipvlan_mode={mode}")]);
        let address = ["run", "--rm", "--network", name, IMAGE, "cat", "/sys/class/net/eth0/address"];
        assert_eq!(engine.ok(&address), of_parent);
        engine.reaches(name);
        engine.ok(&["network", "rm", name]);
    }
    // Only with `bridge` does one container reach another on the same parent.
    engine.make("ipvlan", "open", "10.63.0.0/24", &["parent=wire", "ipvlan_flag=bridge"]);
    engine.reaches("open");
    engine.ok(&["network", "rm", "open"]);
    for flag in ["private", "vepa"] {
        engine.make("ipvlan", flag, "10.64.0.0/24", &["parent=wire", &format!("ipvlan_flag={flag}")]);
        engine.ok(&["run", "-d", "--name", "there", "--network", flag, "--ip", "10.64.0.9", IMAGE, "sleep", "1000"]);
        let ping = ["run", "--rm", "--network", flag, IMAGE, "ping", "-c", "1", "-W", "2", "10.64.0.9"];
        let asked = engine.docker(&ping);
        assert!(asked.stdout.contains("100% packet loss"), "{flag}: {asked:?}");
        engine.ok(&["rm", "-f", "there"]);
        engine.ok(&["network", "rm", flag]);
    }
    engine.make("ipvlan", "tagged", "10.62.0.0/24", &["parent=wire.60"]);
    engine.reaches("tagged");
    engine.ok(&["network", "rm", "tagged"]);
    assert!(!engine.has_link("wire.60"));
}

fn within<T: Send>(namespace: &File, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        inside.join().unwrap()
    })
}

fn set<T>(socket: &OwnedFd, option: i32, value: T) {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is read only, and its length is told.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_SCTP, option, (&raw const value).cast(), length) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

fn sctp() -> OwnedFd {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp).unwrap()
}

/// A message: what it is, its stream, its payload's protocol.
type Message = (Vec<u8>, u16, u32);

/// The next message, whole; none at the end.
fn message(client: &OwnedFd) -> Option<Message> {
    let mut whole = Vec::new();
    loop {
        let mut buffer = vec![0; 1 << 20];
        let mut beside = nix::cmsg_space!([u64; 8]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let got = recvmsg::<()>(client.as_raw_fd(), &mut parts, Some(&mut beside), MsgFlags::empty()).unwrap();
        let about = got.cmsgs().unwrap().find_map(|message| match message {
            ControlMessageOwned::Unknown(message) => Some(message.data_bytes),
            _ => None,
        });
        let (count, ends) = (got.bytes, got.flags.contains(MsgFlags::MSG_EOR));
        if count == 0 {
            return None;
        }
        whole.extend_from_slice(&buffer[..count]);
        if ends {
            // struct sctp_rcvinfo: stream, sequence, flags, and after a gap the protocol.
            let about = about.expect("what is said of a message");
            let stream = u16::from_ne_bytes(about[..2].try_into().unwrap());
            return Some((whole, stream, u32::from_be_bytes(about[8..12].try_into().unwrap())));
        }
    }
}

/// Answers each message with `seen`, and tells of it.
fn answer(address: SocketAddrV4) -> Receiver<Message> {
    let (told, messages) = channel();
    let listener = sctp();
    set(&listener, libc::SCTP_RECVRCVINFO, 1i32);
    bind(listener.as_raw_fd(), &SockaddrIn::from(address)).unwrap();
    listen(&listener, Backlog::new(8).unwrap()).unwrap();
    thread::spawn(move || {
        loop {
            // SAFETY: a new descriptor, nobody else's.
            let client = unsafe { OwnedFd::from_raw_fd(accept(listener.as_raw_fd()).unwrap()) };
            while let Some(message) = message(&client) {
                if told.send(message).is_err() {
                    return;
                }
                send(client.as_raw_fd(), b"seen", MsgFlags::MSG_NOSIGNAL).unwrap();
            }
        }
    });
    messages
}

/// Connects, sends these as messages on stream 3 with protocol 46, and reads an answer to each.
fn say(address: SocketAddrV4, messages: &[&[u8]]) -> nix::Result<()> {
    let client = sctp();
    // Two attempts, half a second each.
    let begin = libc::sctp_initmsg {
        sinit_num_ostreams: 10,
        sinit_max_instreams: 10,
        sinit_max_attempts: 2,
        sinit_max_init_timeo: 500,
    };
    set(&client, libc::SCTP_INITMSG, begin);
    connect(client.as_raw_fd(), &SockaddrIn::from(address))?;
    let about =
        libc::sctp_sndinfo { snd_sid: 3, snd_flags: 0, snd_ppid: 46u32.to_be(), snd_context: 0, snd_assoc_id: 0 };
    set(&client, libc::SCTP_DEFAULT_SNDINFO, about);
    for message in messages {
        send(client.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL)?;
    }
    for _ in messages {
        let mut answer = [0; 64];
        let count = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        assert_eq!(&answer[..count], b"seen");
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with SCTP: cargo xtask test vm"]
fn sctp_is_carried_message_by_message_and_never_past_the_hosts_firewall() {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "server", "-p", "3868:3868/sctp", IMAGE, "sleep", "1000"]);
    assert_eq!(engine.ok(&["port", "server"]), "3868/sctp -> 0.0.0.0:3868\n3868/sctp -> [::]:3868");
    let pid = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "server"]);
    let daemon = engine.daemon();
    let host = File::open(format!("/proc/{daemon}/ns/net")).unwrap();
    let inside = File::open(format!("/proc/{daemon}/root/proc/{pid}/ns/net")).unwrap();
    let messages = within(&inside, || answer(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 3868)));
    let say = |messages: &[&[u8]]| within(&host, || say(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3868), messages));

    let long = vec![b'x'; 150_000];
    say(&[b"one", b"two", &long]).unwrap();
    for expected in [&b"one"[..], b"two", &long] {
        let (message, stream, protocol) = messages.recv().unwrap();
        assert!(message == expected, "{} bytes instead of {}", message.len(), expected.len());
        assert_eq!((stream, protocol), (3, 46));
    }
    let nft = |words: &str| engine.on_host(&[&["nft"], &words.split(' ').collect::<Vec<_>>()[..]].concat()).ok();
    nft("add table inet own");
    nft("add chain inet own in { type filter hook input priority 0 ; }");
    nft("add rule inet own in sctp dport 3868 drop");
    assert_eq!(say(&[b"three"]), Err(nix::Error::ETIMEDOUT), "what the host refuses is refused");
    nft("delete table inet own");
    say(&[b"four"]).unwrap();
    assert_eq!(messages.recv().unwrap().0, b"four");
    let taken = engine.docker(&["run", "--rm", "-p", "3868:1/sctp", IMAGE, "true"]);
    assert!(taken.stderr.contains("port is already allocated"), "{}", taken.stderr);
    engine.ok(&["rm", "-f", "server"]);
    assert_eq!(say(&[b"five"]), Err(nix::Error::ECONNREFUSED), "it closes with its container");
}

/// Starts the kernel's own server, NFSv4 alone, which waits for those that it served before no longer than it must, 10 seconds. What mountd(8) would be asked (whose the client is, what is exported to it,
/// which export a handle is of) the kernel is told beforehand: nobody has to answer.
const SERVE: &str = "
mkdir -p /tmp/export/sub /tmp/nfsd
echo from the server > /tmp/export/sub/file
mount -t nfsd nfsd /tmp/nfsd
echo '-2 -3 +4 +4.1 +4.2' > /tmp/nfsd/versions || echo '-3 +4 +4.1 +4.2' > /tmp/nfsd/versions
echo 10 > /tmp/nfsd/nfsv4leasetime
echo 10 > /tmp/nfsd/nfsv4gracetime
echo 'tcp 2049' > /tmp/nfsd/portlist
echo 1 > /tmp/nfsd/threads
echo 'nfsd 127.0.0.1 2147483647 local' > /proc/net/rpc/auth.unix.ip/channel
echo 'local /tmp/export 2147483647 9218 65534 65534 0' > /proc/net/rpc/nfsd.export/channel
echo 'local 1 \\x00000000 2147483647 /tmp/export' > /proc/net/rpc/nfsd.fh/channel
";

#[test]
#[ignore = "needs a kernel with NFS: cargo xtask test vm"]
fn an_nfs_volume_is_the_servers_directory() {
    let engine = Engine::start();
    engine.on_host(&["busybox", "sh", "-ec", SERVE]).ok();
    let create = |name: &str, address: &str, device: &str| {
        let (options, device) = (format!("o=addr={address},nfsvers=4.2,rw"), format!("device={device}"));
        engine.ok(&["volume", "create", "-o", "type=nfs", "-o", &options, "-o", &device, name]);
    };
    create("whole", "127.0.0.1", ":/");
    let with = |name: &str, script: &str| {
        engine.docker(&["run", "--rm", "-v", &format!("{name}:/far"), IMAGE, "sh", "-c", script])
    };
    assert_eq!(with("whole", "cat /far/sub/file; echo from a container > /far/sub/back").ok(), "from the server\n");
    assert_eq!(std::fs::read_to_string("/tmp/export/sub/back").unwrap(), "from a container\n");
    // A part of it, by a name.
    create("part", "localhost", ":/sub");
    assert_eq!(with("part", "cat /far/back").ok(), "from a container\n");
    assert!(with("part", "grep ' /far ' /proc/mounts").ok().contains(" nfs4 rw,"));
    // Not mounted any more when nobody uses it (a look is a file read: no unmount takes a million), and not removed with
    // what it shows.
    let mounts = || std::fs::read_to_string(format!("/proc/{}/mounts", engine.daemon())).unwrap();
    assert!((0..1_000_000).any(|_| !mounts().contains(" nfs4 ")), "{}", mounts());
    engine.ok(&["volume", "rm", "whole", "part"]);
    assert_eq!(std::fs::read_to_string("/tmp/export/sub/file").unwrap(), "from the server\n");
    create("none", "127.0.0.1", ":/none");
    let refused = with("none", "true");
    let why = "failed to mount local volume: mount :/none:";
    assert!(refused.stderr.contains(why) && refused.stderr.contains("no such file or directory"), "{refused:?}");
    engine.on_host(&["busybox", "sh", "-ec", "echo 0 > /tmp/nfsd/threads; umount /tmp/nfsd"]).ok();
}
