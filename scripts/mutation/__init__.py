"""Parts of the mutation test."""
