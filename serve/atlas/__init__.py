"""The atlas: measured latency, memory and energy of networks on this machine, and charts of them."""
