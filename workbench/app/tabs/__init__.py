"""The tabs of the page. Each has a builder that makes its components, and functions that fill them."""
