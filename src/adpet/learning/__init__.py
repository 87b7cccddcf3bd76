"""Keras on any backend: the network, its data, its training and its class activation maps."""
