"""What the project is built from: locked packages, their known weaknesses, a bill of materials. For developers and CI."""
