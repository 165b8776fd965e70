//! Ports that require a right to listen on, and how to obtain it (ip(7), capabilities(7)).

/// The remedy for a port on which this user may not listen, with the key that names it.
pub fn remedy(port: u16, key: &str) -> String {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.as_deref().map_or("1024", str::trim);
    format!(
        "ports below {first} need a right: grant CAP_NET_BIND_SERVICE (`AmbientCapabilities=CAP_NET_BIND_SERVICE` of \
         systemd, `setcap cap_net_bind_service=+ep` of the program), or lower net.ipv4.ip_unprivileged_port_start to \
         {port} by sysctl, or write another port into `{key}`"
    )
}
