"""btkit as an estimator of scikit-learn."""
