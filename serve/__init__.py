"""How models are offered: gateway, hosts, meter. The only package that knows Ray."""
