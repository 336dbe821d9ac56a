"""Pure scoring maths: numbers in, numbers out."""
