-- What the policy asks, one step after another: who comes to it, and whom it alone keeps open.
SELECT step, split_part(clause, '/', 2) AS clause, effect, entering, met, not_met, "unknown", certain, only_open
FROM 'answers/attrition.csv'
WHERE guideline = 'cms-l34228'
ORDER BY step
