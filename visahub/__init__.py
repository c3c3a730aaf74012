"""visahub: experiments, environments and hardware on JupyterHub, for photon and neutron facilities."""

__version__ = "0.1.0"
