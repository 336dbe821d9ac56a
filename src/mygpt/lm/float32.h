/* float and vectors of it, for processors with AVX-512, under the names of bf16.h. */
#pragma once

#include "vectors.h"

typedef float real;
enum { WIDE = 16 }; /* of them in a vector */

INLINE __m512 widen(const float *p) { return _mm512_loadu_ps(p); }

INLINE void narrow(float *to, __m512 x) { _mm512_storeu_ps(to, x); }

INLINE float one(float x) { return x; }

/* sum + a[i] b[i] for the next WIDE numbers of each */
INLINE __m512 add_products(__m512 sum, const float *a, const float *b) { return _mm512_fmadd_ps(_mm512_loadu_ps(a), _mm512_loadu_ps(b), sum); }
