"""The wire, with no I/O in it: nothing here knows a socket, a clock, a thread or an event loop."""
