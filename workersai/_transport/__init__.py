"""Connections to the service: HTTP/1.1 over sockets and asyncio, pools, proxies and time limits."""
