//! Userspace TCP/IP: SOCKS5 proxy, port forwards and in-process sockets.
