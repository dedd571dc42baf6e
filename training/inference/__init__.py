"""Inference: engines that stream the answers of several arms at the same time."""
