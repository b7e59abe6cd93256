"""The rules of `lower-to-integer`, by what the operators do.

Every rounded activation is ``dequantise(quantise(x))`` at first. The rules walk forward: layers, averages and products
of dequantised operands become integer sums that are rescaled (`layers`); what moves elements moves the integers
instead (`movement`); functions of sums get their exact meaning (`functions`); and a quantise takes what is before it
into integers if it can (`requantisation`). What is made of the value ``x`` in integers is called ``x_q``, the sums of a
layer ``x`` are ``x_sums``.
"""
