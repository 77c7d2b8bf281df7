"""Systems we learn: models of irregular sequences, one file a family."""
