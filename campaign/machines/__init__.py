"""Small machines: a share of a core for a whole service, or too little of something; what is slow must not be taken for dead."""
