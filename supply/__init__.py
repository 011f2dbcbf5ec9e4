"""The supply chain: locked packages, known vulnerabilities, and a software bill of materials. For developers and CI."""
