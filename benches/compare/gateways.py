"""Envoy, Traefik and Caddy: the gateways that are configured by documents, here all in JSON."""

import http.client
import json
import os

from peers import Peer
from place import free_port, program

TYPES = "type.googleapis.com/envoy.extensions"


def typed(name, kind, **fields):
    """A part of Envoy's configuration: each carries its type."""
    return {"name": name, "typed_config": {"@type": f"{TYPES}.{kind}", **fields}}


def address(text):
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def cluster(name, to):
    endpoint = {"endpoint": {"address": address(to)}}
    return {"name": name, "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}}


class Envoy(Peer):
    name, title = "envoy", "Envoy, no check"

    def prepare(self):
        clusters = [cluster("his", self.upstream), *self.clusters()]
        filters = [*self.filters(), typed("router", "filters.http.router.v3.Router")]
        log = [typed("log", "access_loggers.file.v3.FileAccessLog", path=self.log)] if self.scene.log else []
        route = {"match": {"prefix": "/"}, "route": {"cluster": "his"}}
        manager = typed("manager", "filters.network.http_connection_manager.v3.HttpConnectionManager",
                        stat_prefix="in", http_filters=filters, access_log=log, route_config={
                            "virtual_hosts": [{"name": "his", "domains": ["*"], "routes": [route]}]})
        pair = {"certificate_chain": {"filename": self.place.certificate}, "private_key": {"filename": self.place.key}}
        tls = typed("tls", "transport_sockets.tls.v3.DownstreamTlsContext", disable_stateless_session_resumption=True,
                    disable_stateful_session_resumption=True, common_tls_context={
                        "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pair],
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}})
        listener = {"name": "in", "address": address(self.listen),
                    "filter_chains": [{"filters": [manager], "transport_socket": tls}]}
        config = {"static_resources": {"listeners": [listener], "clusters": clusters}}
        self.config = self.place.write(f"{self.file}.json", json.dumps(config))

    def clusters(self):
        return []

    def filters(self):
        return []

    def command(self):
        return [program("envoy"), "-c", self.config, "--concurrency", str(self.place.threads), "--disable-hot-restart",
                "--log-level", "off"]


class EnvoyRbac(Envoy):
    """Passwords by `basic_auth`, which knows SHA-1 alone; then a policy that judges caller, method and path."""

    name, title = "envoy-rbac", "Envoy, `basic_auth` (SHA-1) and RBAC"
    can = {"checks", "unix", "h2", "bodies"}

    def filters(self):
        users = {"inline_string": self.accounts.lines_of_sha1()}
        basic = typed("basic", "filters.http.basic_auth.v3.BasicAuth", users=users, forward_username_header="x-user")
        method = {"header": {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|PATCH|POST"}}}}
        paths = {"or_rules": {"rules": [{"url_path": {"path": {"prefix": path}}} for path in ("/people/", "/pols/")]}}
        policy = {"permissions": [{"and_rules": {"rules": [method, paths]}}],
                  "principals": [{"header": {"name": "x-user", "present_match": True}}]}
        rules = {"action": "ALLOW", "policies": {"end_user": policy}}
        return [basic, typed("rbac", "filters.http.rbac.v3.RBAC", rules=rules)]


class EnvoyAuthz(Envoy):
    name, title = "envoy-authz", "Envoy, `ext_authz`"
    can = {"checks", "unix", "h2", "bodies"}

    def clusters(self):
        self.service = self.authorizer()
        return [cluster("authorizer", self.service)]

    def filters(self):
        server = {"uri": f"http://{self.service}", "cluster": "authorizer", "timeout": "5s"}
        return [typed("authz", "filters.http.ext_authz.v3.ExtAuthz", http_service={"server_uri": server})]


class Traefik(Peer):
    name, title = "traefik", "Traefik, basic auth, bcrypt"
    can = {"checks", "reload", "h2", "bodies"}

    def prepare(self):
        self.folder = self.place.path(f"{self.file}-routes")
        os.mkdir(self.folder)
        self.passwords = self.place.write(f"{self.file}-passwords", self.accounts.lines())
        self.reload(0)

    def reload(self, number):
        pair = {"certFile": self.place.certificate, "keyFile": self.place.key}
        paths = "(PathPrefix(`/people/`) || PathPrefix(`/pols/`))" + (" && PathPrefix(`/`)" if number % 2 else "")
        router = {"rule": paths, "entryPoints": ["in"], "service": "his", "middlewares": ["basic"], "tls": {}}
        config = {
            "http": {
                "routers": {"his": router},
                "middlewares": {"basic": {"basicAuth": {"usersFile": self.passwords, "removeHeader": True}}},
                "services": {"his": {"loadBalancer": {"servers": [{"url": f"http://{self.upstream}"}],
                                                      "serversTransport": "kept"}}},
                "serversTransports": {"kept": {"maxIdleConnsPerHost": 512}},
            },
            "tls": {"certificates": [pair], "stores": {"default": {"defaultCertificate": pair}},
                    "options": {"default": {"minVersion": "VersionTLS13", "disableSessionTickets": True}}},
        }
        new = self.place.write(f"{self.file}-new", json.dumps(config))
        os.replace(new, os.path.join(self.folder, "routes.yml"))

    def command(self):
        log = [f"--accesslog.filepath={self.log}", "--accesslog.bufferingsize=1000"] if self.scene.log else []
        return [program("traefik"), f"--entrypoints.in.address={self.listen}", f"--providers.file.directory={self.folder}",
                "--providers.file.watch=true", "--providers.providersthrottleduration=100ms",
                "--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=ERROR", *log]

    def options(self):
        return {"environment": {"GOMAXPROCS": str(self.place.threads)}}


class Caddy(Peer):
    name, title = "caddy", "Caddy, basic auth, bcrypt, its cache"
    can = {"checks", "reload", "unix", "h2", "bodies"}
    learns = True
    log_kind = "each line"

    def prepare(self):
        self.admin = free_port()
        self.config = self.place.write(f"{self.file}.json", json.dumps(self.document(0)))

    def document(self, number):
        accounts = [{"username": name, "password": hashed} for name, hashed in
                    zip(self.accounts.names, self.accounts.hashes)]
        basic = {"accounts": accounts, "hash": {"algorithm": "bcrypt"}, "hash_cache": {}, "realm": f"his {number % 2}"}
        dial = self.upstream.replace("unix:", "unix/")
        route = {"handle": [
            {"handler": "authentication", "providers": {"http_basic": basic}},
            {"handler": "reverse_proxy", "upstreams": [{"dial": dial}],
             "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 512}}}]}
        server = {"listen": [self.listen], "routes": [route], "protocols": ["h1", "h2"],
                  "automatic_https": {"disable": True}, "tls_connection_policies": [{"protocol_min": "tls1.3", "default_sni": "localhost"}]}
        logs = {"default": {"level": "ERROR", "exclude": ["http.log.access"]}}
        if self.scene.log:
            server["logs"] = {}
            writer = {"output": "file", "filename": self.log, "roll": False}
            logs["access"] = {"writer": writer, "include": ["http.log.access"]}
        pair = {"certificate": self.place.certificate, "key": self.place.key}
        tls = {"certificates": {"load_files": [pair]}, "session_tickets": {"disabled": True}}
        return {"admin": {"listen": f"127.0.0.1:{self.admin}", "config": {"persist": False}}, "logging": {"logs": logs},
                "apps": {"http": {"servers": {"in": server}}, "tls": tls}}

    def reload(self, number):
        line = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        line.request("POST", "/load", json.dumps(self.document(number)), {"Content-Type": "application/json"})
        answer = line.getresponse()
        answer.read()
        line.close()
        if answer.status != 200:
            raise RuntimeError(f"caddy: {answer.status}")

    def command(self):
        return [program("caddy"), "run", "--config", self.config]

    def options(self):
        return {"environment": {"GOMAXPROCS": str(self.place.threads), "XDG_DATA_HOME": self.place.directory,
                                "XDG_CONFIG_HOME": self.place.directory}}
