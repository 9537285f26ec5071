"""Serial algorithms in scalar code: of matrices in, parts of the result out."""
