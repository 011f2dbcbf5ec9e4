"""What is computed: architectures, training, export, artifacts, engines. Knows neither Ray nor HTTP."""
