# Runs the Worker on workerd, with the local server of workersai behind env.AI.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    # Where `workersai serve` listens.
    (name = "workers-ai", external = (address = "127.0.0.1:8787", http = ())),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8080", http = (), service = "main")],
);

const main :Workerd.Worker = (
  compatibilityDate = "2026-11-01",
  modules = [(name = "index.js", esModule = embed "dist/index.js")],
  bindings = [
    ( name = "AI",
      wrapped = (
        moduleName = "cloudflare-internal:ai-api",
        innerBindings = [(name = "fetcher", service = "workers-ai")],
      ),
    ),
  ],
);
