"""nginx, HAProxy and Apache: the servers that are written in C."""

import os
import signal
import socket

from peers import Peer
from place import Missing, program

MANY = 100_000_000


class Nginx(Peer):
    name, title = "nginx", "nginx, no check"

    def prepare(self):
        user = "" if os.geteuid() else "user root; "
        log = f"{self.log} combined buffer=64k flush=1s" if self.scene.log else "off"
        temporary = " ".join(f"{kind}_temp_path {self.place.path(kind)};"
                             for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        upstream = self.upstream
        self.config = self.place.write(f"{self.file}.conf", f"""
daemon off; worker_processes {self.place.threads}; pid {self.place.path(self.file)}.pid; {user}error_log /dev/null;
events {{ worker_connections 8192; }}
http {{
    access_log {log}; {temporary}
    upstream his {{ server {upstream}; keepalive 512; keepalive_requests {MANY}; }}
    {self.outside()}
    server {{
        listen {self.listen} ssl http2 reuseport;
        ssl_certificate {self.place.certificate}; ssl_certificate_key {self.place.key};
        ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;
        keepalive_requests {MANY}; http2_max_requests {MANY};
        location / {{
            {self.inside()}
            proxy_pass http://his; proxy_http_version 1.1; proxy_set_header Connection "";
        }}
        {self.beside()}
    }}
}}
""")

    def outside(self):
        return ""

    def inside(self):
        return ""

    def beside(self):
        return ""

    def command(self):
        return [program("nginx"), "-c", self.config]

    def options(self):
        return {"folder": self.place.directory}


class NginxBasic(Nginx):
    name, title = "nginx-basic", "nginx, `auth_basic`, bcrypt"
    can = {"checks", "reload", "unix", "h2", "bodies"}
    patience = 2

    def passwords(self):
        return self.accounts.lines()

    def inside(self):
        known = self.place.write(f"{self.file}-passwords", self.passwords())
        return f"auth_basic his; auth_basic_user_file {known};"

    def reload(self, number):
        self.processes[0].send_signal(signal.SIGHUP)


class NginxSha(NginxBasic):
    name, title = "nginx-sha1", "nginx, `auth_basic`, SHA-1"
    patience = 1

    def passwords(self):
        return self.accounts.lines_of_sha1()


class NginxRequest(Nginx):
    name, title = "nginx-request", "nginx, `auth_request`, cached 10 s"
    can = {"checks", "unix", "h2", "bodies"}
    learns = True

    def outside(self):
        self.service = self.authorizer()
        cache = self.place.path(f"{self.file}-cache")
        return (f"proxy_cache_path {cache} keys_zone=known:16m; open_file_cache max=20000;\n"
                f"    upstream authorizer {{ server {self.service}; keepalive 64; keepalive_requests {MANY}; }}")

    def inside(self):
        return "auth_request /known;"

    def beside(self):
        return """location = /known {
            internal; proxy_pass http://authorizer; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_pass_request_body off; proxy_set_header Content-Length "";
            proxy_cache known; proxy_cache_key $http_authorization; proxy_cache_valid 200 10s;
        }"""


class Haproxy(Peer):
    """HAProxy writes no file: its log goes to stdout, which is one, line by line."""

    name, title = "haproxy", "HAProxy, no check"
    log_kind = "each line"

    def prepare(self):
        log = "log stdout format raw local0 info" if self.scene.log else ""
        upstream = self.upstream.replace("unix:", "unix@")
        self.control = self.place.path(f"{self.file}.sock")
        self.config = self.place.write(f"{self.file}.cfg", f"""
global
    nbthread {self.place.threads}
    maxconn 8192
    tune.ssl.cachesize 0
    stats socket {self.control} level admin
    {log}
defaults
    mode http
    {"log global" if log else ""}
    {"option httplog" if log else ""}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
{self.outside()}
frontend tls
    bind {self.listen} ssl crt {self.place.both} alpn h2,http/1.1 ssl-min-ver TLSv1.3 no-tls-tickets
    {self.inside()}
    default_backend his
backend his
    server his {upstream}
""")

    def outside(self):
        return ""

    def inside(self):
        return ""

    def command(self):
        return [program("haproxy"), "-db", "-f", self.config]

    def options(self):
        return {"out": self.log if self.scene.log else None}


class HaproxyAuth(Haproxy):
    name, title = "haproxy-auth", "HAProxy, `http_auth`, bcrypt"
    can = {"checks", "reload", "unix", "h2", "bodies"}
    patience = 2

    def users(self):
        return [f"password {hashed}" for hashed in self.accounts.hashes]

    def outside(self):
        lines = (f"    user {name} {secret}" for name, secret in zip(self.accounts.names, self.users()))
        return "userlist people\n" + "\n".join(lines)

    def inside(self):
        self.policy = self.place.write(f"{self.file}.paths", "/people/\n/pols/\n")
        return (f"acl known http_auth(people)\n    http-request auth realm his unless known\n"
                f"    http-request deny unless {{ path_beg -f {self.policy} }}")

    def control_say(self, text):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(self.control)
            line.sendall(text.encode() + b"\n")
            answer = b""
            while part := line.recv(4096):
                answer += part
        return answer.decode()

    def reload(self, number):
        """The list of paths is replaced as a whole, over the control socket."""
        answer = self.control_say(f"prepare acl {self.policy}")
        if "created: " not in answer:
            raise RuntimeError(answer)
        version = answer.split("created: ")[1].strip()
        paths = "; ".join(f"add acl @{version} {self.policy} {path}" for path in ("/people/", "/pols/"))
        self.control_say(f"{paths}; commit acl @{version} {self.policy}")


class HaproxyClear(HaproxyAuth):
    name, title = "haproxy-clear", "HAProxy, `http_auth`, passwords in clear"
    patience = 1

    def users(self):
        return [f"insecure-password {password}" for password in self.accounts.passwords]


class Apache(Peer):
    """Its cache holds the hashes of the file, not what was proved: it hashes for each request."""

    name, title = "apache", "Apache, `mod_authn_socache`, bcrypt"
    can = {"checks", "reload", "unix", "h2", "bodies"}
    patience = 2

    MODULES = ("mpm_event", "authn_core", "authn_file", "authn_socache", "authz_core", "authz_user", "auth_basic",
               "socache_shmcb", "ssl", "http2", "proxy", "proxy_http", "log_config")

    def prepare(self):
        modules = "/usr/lib/apache2/modules"
        if not os.path.isdir(modules):
            raise Missing(modules)
        known = self.place.write(f"{self.file}-passwords", self.accounts.lines())
        runtime = self.place.path(f"{self.file}-run")
        os.mkdir(runtime)
        load = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in self.MODULES
                         if os.path.exists(f"{modules}/mod_{name}.so"))
        log = f'BufferedLogs On\nCustomLog {self.log} "%h %l %u %t \\"%r\\" %>s %O"' if self.scene.log else ""
        address = f"unix:{self.place.socket}|http://localhost" if self.scene.unix else f"http://{self.upstream}"
        threads = 384 // self.place.threads
        user = "" if os.geteuid() else "User www-data\nGroup www-data"
        self.config = self.place.write(f"{self.file}.conf", f"""
{load}
ServerRoot {runtime}
DefaultRuntimeDir {runtime}
PidFile {runtime}/pid
ServerName localhost
ErrorLog /dev/null
{user}
Listen {self.listen}
ServerLimit {self.place.threads}
StartServers {self.place.threads}
ThreadLimit {threads}
ThreadsPerChild {threads}
MaxRequestWorkers {threads * self.place.threads}
MinSpareThreads 1
MaxSpareThreads {threads * self.place.threads}
KeepAlive On
KeepAliveTimeout 60
MaxKeepAliveRequests 0
Protocols h2 http/1.1
H2MaxSessionStreams 100
{log}
SSLEngine On
SSLProtocol TLSv1.3
SSLSessionCache none
SSLSessionTickets Off
SSLCertificateFile {self.place.certificate}
SSLCertificateKeyFile {self.place.key}
AuthnCacheSOCache shmcb:{runtime}/known(16777216)
AuthnCacheEnable
ProxyPass / {address}/ keepalive=On
<Location />
    AuthType Basic
    AuthName his
    AuthBasicProvider socache file
    AuthUserFile {known}
    AuthnCacheProvideFor file
    AuthnCacheTimeout 900
    Require valid-user
</Location>
""")

    def command(self):
        return [program("apache2"), "-DFOREGROUND", "-f", self.config]

    def reload(self, number):
        self.processes[0].send_signal(signal.SIGUSR1)
