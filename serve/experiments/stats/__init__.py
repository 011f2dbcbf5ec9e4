"""Always-valid inference: all intervals and p-values here stay valid when they are computed after every sample."""
