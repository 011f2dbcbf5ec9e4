"""Always-valid inference: every interval and p-value here may be looked at after every sample."""
