"""What the passes of quantisation share: what is quantised, with which parameters, how far they move the outputs."""
