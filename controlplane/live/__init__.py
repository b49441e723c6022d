"""What organizations spend at this moment, kept only while somebody watches."""
