"""Comptroller, composed: command line, application, simulated provider."""
