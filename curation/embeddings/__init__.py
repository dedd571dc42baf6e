"""Texts as unit vectors: encoders, their cache, cosines and nearest neighbours."""
