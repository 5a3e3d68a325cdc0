"""mopo-bench: regenerates Tables 1 and 2 of MOPO (Yu et al., NeurIPS 2020), and takes your algorithm beside them."""
